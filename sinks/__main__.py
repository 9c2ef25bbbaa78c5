"""`python -m sinks run` and `python -m sinks migrate`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

import structlog

from serving.heap import steady_heap
from serving.logs import configure
from serving.monitor import Monitor
from sinks.clickhouse import connect
from sinks.migrations import migrate
from sinks.settings import SinkSettings, load_settings
from sinks.sink import LEAVING, Sink
from steersman.errors import ConfigError, SteersmanError, Unreachable

log = structlog.get_logger("steersman.sink")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 ok, 1 failed, 2 usage, 3 unreachable."""
    parser = argparse.ArgumentParser(prog="python -m sinks", description="Kafka to ClickHouse.")
    parser.add_argument("--clickhouse", metavar="URL", help="STEERSMAN_CLICKHOUSE_URL")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="copy the topics into the tables until SIGTERM")
    run.add_argument("--brokers", help="STEERSMAN_BROKERS")
    run.add_argument("--flush-s", type=float, help="STEERSMAN_SINK_FLUSH_S: longest wait of a row, in seconds")
    run.add_argument("--flush-rows", type=int, help="STEERSMAN_SINK_FLUSH_ROWS: rows that make an insert at once")
    run.add_argument("--metrics-port", type=int, help="STEERSMAN_METRICS_PORT: serve /metrics, /livez, /readyz there")
    apply = commands.add_parser("migrate", help="create or upgrade tables and views")
    apply.add_argument("--dry-run", action="store_true", help="only say what would be applied")
    for command in (run, apply):
        command.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")
        command.add_argument("--clickhouse", metavar="URL", default=argparse.SUPPRESS, help="STEERSMAN_CLICKHOUSE_URL")
    args = parser.parse_args(argv)
    configure("sink")
    steady_heap()
    try:
        options = vars(args)
        settings = load_settings(
            clickhouse_url=args.clickhouse,
            brokers=options.get("brokers"),
            sink_flush_s=options.get("flush_s"),
            sink_flush_rows=options.get("flush_rows"),
            metrics_port=options.get("metrics_port"),
        )
    except ConfigError as e:
        return _say(args.command, e, 2)
    try:
        return _migrate(settings, args.dry_run, args.json) if args.command == "migrate" else _run(settings, args.json)
    except SteersmanError as e:
        return _say(args.command, e, 3 if isinstance(e, Unreachable) else 1)


def _say(command: str, error: SteersmanError, code: int) -> int:
    if command == "run":
        log.critical(str(error))
    else:
        print(f"sinks: {error}", file=sys.stderr)
    return code


def _migrate(settings: SinkSettings, dry_run: bool, as_json: bool) -> int:
    client = connect(settings.clickhouse_url, create_database=not dry_run)
    done = migrate(client, dry_run)
    names = [f"{m.version:04}_{m.name}" for m in done]
    if as_json:
        print(
            json.dumps({"dry_run": dry_run, "applied": [] if dry_run else names, "pending": names if dry_run else []})
        )
    else:
        verb = "to apply" if dry_run else "applied"
        print(f"{verb}: {', '.join(names)}" if names else "the database is up to date")
    return 0


def _run(settings: SinkSettings, as_json: bool) -> int:
    sink = Sink(settings)
    # Ten thousands of waiting messages without a cycle among them: with the collector as it comes, holding one costs four
    # times as much. So it comes when there are 200,000 things more, which is more than batches that come and go; at 20,000 it
    # cost 0.7 us a row, a fifth of all that is done for one.
    gc.freeze()
    gc.set_threshold(200_000, 10, 100)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sink.stop())
    with contextlib.ExitStack() as stack:
        if settings.metrics_port is not None:
            monitor = Monitor(sink.metrics.registry, sink.health, settings.metrics_port, settings.metrics_host)
            stack.enter_context(monitor)
            log.info("metrics", url=f"{monitor.url}/metrics")
        sink.run()
    if as_json:
        print(json.dumps(sink.stats()))
    return 0


def _end(code: int) -> NoReturn:
    """End the process, also where its consumer waits for a broker that is silent."""
    if any(thread.name == LEAVING for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(code)
    raise SystemExit(code)


if __name__ == "__main__":
    _end(main())
