"""`python -m page`: serve the live page until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from page.acts import Desk
from page.http import Page
from page.lag import Lags
from page.overview import Overview
from page.sessions import Sessions
from page.settings import PageSettings, load_settings
from page.store import Store
from serving.command import exit_code
from serving.heap import steady_heap
from serving.logs import configure
from serving.web import announced, listen, stop_signal
from steersman.registry import Registry
from steersman.subscriber import PolicySubscriber
from steersman.topics import Topics
from streams.operator import Operator


def main(argv: Sequence[str] | None = None) -> int:
    """Run the page; returns the exit code: 0 ok, 1 failed, 2 usage, 3 unreachable."""
    args = _parser().parse_args(argv)
    configure("page")
    steady_heap()

    def serve() -> int:
        settings = load_settings(
            clickhouse_url=args.clickhouse,
            brokers=args.brokers,
            page_host=args.host,
            page_port=args.port,
            page_window_s=args.window,
        )
        return asyncio.run(_serve(settings, args.port_file))

    return exit_code("page", serve)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m page",
        description="The live page: is it learning, what does it choose, is anything wrong; traces and policies. "
        "Every setting has an environment variable STEERSMAN_<NAME>; docs/page.md lists them.",
        epilog="Example: python -m page --clickhouse http://127.0.0.1:8123 --port 8500",
    )
    parser.add_argument("--clickhouse", help="ClickHouse URL (default http://127.0.0.1:8123)")
    parser.add_argument("--brokers", help="Kafka, for the weights of policies (default 127.0.0.1:9092), '' for none")
    parser.add_argument("--host", help="address to bind (default 127.0.0.1); any other needs STEERSMAN_PAGE_TOKEN")
    parser.add_argument("--port", type=int, help="port, 0 for any free one (default 8500)")
    parser.add_argument("--port-file", type=Path, help="write the port there once the page is served")
    parser.add_argument("--window", type=int, metavar="SECONDS", help="time that is shown (default 900)")
    return parser


async def _serve(settings: PageSettings, port_file: Path | None) -> int:
    token, endpoints = settings.token, settings.endpoints
    policies: PolicySubscriber | None = None
    desk: Desk | None = None
    if settings.brokers:
        topics = Topics(settings.topic_prefix)
        registry = Registry(settings.registry_url, topics=topics) if settings.registry_url else None
        policies = PolicySubscriber(settings.brokers, topics=topics, tenant=settings.tenant, registry=registry)
        policies.start()
        desk = Desk(Operator(settings.brokers, topics, registry), settings.tenant)
    page = Page(
        Overview(Store(settings.clickhouse_url, settings.tenant), settings.page_window_s),
        Store(settings.clickhouse_url, settings.tenant),
        policies,
        Sessions(token),
        settings.hosts,
        Lags(endpoints),
        settings.page_max_viewers,
        settings.page_max_per_s,
        desk=desk,
    )
    stop = stop_signal()
    runner = web.AppRunner(page.application(), access_log=None, auto_decompress=False, shutdown_timeout=5.0)
    await runner.setup()
    try:
        await listen(runner, settings.page_host, settings.page_port)
        with announced("page", runner, settings.page_host, port_file):
            await stop.wait()
    finally:
        await runner.cleanup()
        if policies is not None:
            await asyncio.to_thread(policies.close)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
