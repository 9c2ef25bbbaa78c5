"""`steersman demo`: the whole loop on one machine, watched while it learns."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.live import Live

from console.children import Child, ChildFailed, python
from console.lag import LagMeter
from console.live import INTERACTION_POLICY, line, look, render
from console.output import err, out, print_json, print_rows
from console.probe import ReactionProbe
from console.report import command as report
from console.report.queries import Request as ReportRequest
from console.stack import Stack
from console.target import Target
from sinks.clickhouse import connect
from sinks.settings import load_settings as sink_settings
from steersman.errors import SteersmanError
from streams.settings import StreamSettings

REPLAY_PROMPTS = 3609
"""Prompts of the default data set (both files of the paretobandit wheel)."""
QUIET_S = 2.5
"""Seconds without a new row after which everything counts as stored: longer than two flushes of the sink."""
MAX_REPLAY_RATE = 60.0
"""Prompts per second that leave the machine to the fleet."""
_STORED = "SELECT (SELECT count() FROM trace_events), (SELECT count() FROM rewards)"
_SPAN = "SELECT min(decided_at), max(decided_at) FROM v_rewards WHERE policy = {policy:String} AND mode = 'LIVE'"
_RESULT = """
SELECT avg(latency_us) / 1e3, avg(cost_micro_usd) / 1e6, avg(quality), count()
FROM v_rewards
WHERE policy = {policy:String} AND mode = {mode:String} AND quality IS NOT NULL AND decided_at >= {since:DateTime64(6)}
"""


@dataclass(frozen=True)
class DemoSettings:
    """What to run.

    Attributes
    ----------
    seconds
        How long the fleet and the replay run; unit: seconds.
    rate
        Interactions of the fleet; unit: per second.
    seed
        Of the fleet's world and of the replay's order.
    kafka
        Apache Kafka instead of the embedded broker.
    keep
        Leave the stack running until Ctrl-C.
    policies
        Policies file.
    as_json
        End with one JSON object instead of tables.
    """

    seconds: int
    rate: float
    seed: int
    kafka: bool
    keep: bool
    policies: Path
    as_json: bool


def run(settings: DemoSettings) -> int:
    """Run the demo; returns the exit code.

    Raises
    ------
    SteersmanError
        When a part fails; its message shows which, and the end of its log.
    """
    with Stack("demo", settings.policies, kafka=settings.kafka, fresh=True) as stack:
        stack.start(lambda step: err.print(f"{step} ..."))
        err.print(
            f"live page: {stack.page}\nrunning the fleet and the replay for {settings.seconds} s; logs in {stack.logs}",
            highlight=False,
        )
        probe = ReactionProbe(stack.env, stack.brokers, stack.topics, stack.logs)
        try:
            fleet = stack.children.start("fleet", python("examples.fleet", *_fleet_args(settings)), stack.env)
            replay = stack.children.start("replay", python("examples.replay", *_replay_args(settings)), stack.env)
            with meters(stack) as (worker_lag, sink_lag):
                _watch(settings, stack, [fleet, replay], probe, worker_lag, sink_lag)
                probe.stop()
                _drain(stack, worker_lag, sink_lag)
            result = _result(stack, probe, _last_json(fleet), _last_json(replay))
        finally:
            probe.stop()
        _print(settings, result, _report(stack))
        if settings.keep:
            err.print(
                f"still running: live page {stack.page}, brokers {stack.brokers}, ClickHouse {stack.store}. Ctrl-C stops everything.",
                highlight=False,
            )
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    stack.wait(lambda: False, 1.0)
    return 0


def _fleet_args(settings: DemoSettings) -> list[str]:
    return [
        "--rate",
        str(settings.rate),
        "--seconds",
        str(settings.seconds),
        "--seed",
        str(settings.seed),
        "--json",
    ]


def _replay_args(settings: DemoSettings) -> list[str]:
    # The whole data set within the demo's time where that is long enough, a part of it where it is not.
    busy_s = 0.95 * settings.seconds
    rate = min(MAX_REPLAY_RATE, REPLAY_PROMPTS / busy_s)
    limit = min(REPLAY_PROMPTS, int(rate * busy_s))
    return ["--rate", f"{rate:.2f}", "--limit", str(limit), "--seed", str(settings.seed), "--json"]


@contextlib.contextmanager
def meters(stack: Stack) -> Iterator[tuple[LagMeter, LagMeter]]:
    """Lag meters of the worker's and the sink's consumer groups."""
    t = stack.topics
    with (
        LagMeter(stack.brokers, StreamSettings().group, [t.trace, t.reward]) as worker,
        LagMeter(stack.brokers, sink_settings().group, [t.trace, t.reward, t.rollup]) as sink,
    ):
        yield worker, sink


def _watch(
    settings: DemoSettings,
    stack: Stack,
    drivers: list[Child],
    probe: ReactionProbe,
    worker_lag: LagMeter,
    sink_lag: LagMeter,
) -> None:
    """Show the loop until the drivers have ended."""
    started = time.monotonic()
    live = Live(console=err, refresh_per_second=4) if err.is_terminal and not settings.as_json else None
    with contextlib.closing(connect(stack.clickhouse)) as client, live or contextlib.nullcontext():
        shown = 0.0
        while any(d.exit_code is None for d in drivers):
            elapsed = time.monotonic() - started
            if elapsed > 3 * settings.seconds + 60:
                raise ChildFailed(f"the drivers did not end within {elapsed:.0f} s; see the logs in {stack.logs}")
            _check(stack, drivers)
            view = look(client)
            view.worker_lag, view.sink_lag = worker_lag.lag(), sink_lag.lag()
            view.reaction_p50_ms, view.reaction_p99_ms = probe.percentile_ms(0.5), probe.percentile_ms(0.99)
            if live is not None:
                live.update(render(view, elapsed, settings.seconds))
            elif elapsed - shown >= 5:
                shown = elapsed
                err.print(line(view, elapsed), highlight=False, soft_wrap=True)
            time.sleep(1.0)
        _check(stack, drivers)


def _check(stack: Stack, drivers: list[Child]) -> None:
    """Raise when a part has died, or a driver has failed."""
    for driver in drivers:
        if driver.exit_code is not None and driver in stack.children.children:
            stack.children.children.remove(driver)
        if driver.exit_code:
            raise ChildFailed(
                f"{driver.name} failed with exit code {driver.exit_code}; the end of {driver.log}:\n{driver.tail()}"
            )
    stack.check()


def _drain(stack: Stack, worker_lag: LagMeter, sink_lag: LagMeter) -> None:
    """Wait until what the drivers sent is processed and stored: no lag, and nothing new for a while."""
    err.print("waiting for the last rewards ...")
    with contextlib.closing(connect(stack.clickhouse)) as client:
        seen: tuple[int, ...] = ()
        since = time.monotonic()

        def quiet() -> bool:
            nonlocal seen, since
            stored = tuple(client.query(_STORED).result_rows[0])
            if stored != seen or worker_lag.lag() != 0 or sink_lag.lag() != 0:
                seen, since = stored, time.monotonic()
            return time.monotonic() - since > QUIET_S

        stack.wait(quiet, 30)


def _last_json(child: Child) -> dict[str, Any]:
    for text in reversed(child.log.read_text().splitlines()):
        if text.startswith("{"):
            loaded: dict[str, Any] = json.loads(text)
            return loaded
    raise ChildFailed(f"{child.name} printed no result; see {child.log}")


def _result(stack: Stack, probe: ReactionProbe, fleet: dict[str, Any], replay: dict[str, Any]) -> dict[str, Any]:
    """Read the outcome from the store."""
    with contextlib.closing(connect(stack.clickhouse)) as client:
        first, last = client.query(_SPAN, parameters={"policy": INTERACTION_POLICY}).result_rows[0]

        def measure(mode: str, since: Any) -> dict[str, Any]:
            parameters = {"policy": INTERACTION_POLICY, "mode": mode, "since": since}
            latency_ms, cost_usd, quality, n = client.query(_RESULT, parameters=parameters).result_rows[0]
            return {"latency_ms": latency_ms, "cost_usd": cost_usd, "quality": quality, "interactions": n}

        learned = measure("LIVE", first + (last - first) * 0.75)
        baseline = measure("HOLDOUT", first)
        events = int(client.query("SELECT count() FROM v_events").result_rows[0][0])
        dead = int(client.query("SELECT count() FROM v_dead_letters").result_rows[0][0])
    return {
        **learned,
        "baseline": baseline,
        "reaction_p50_ms": probe.percentile_ms(0.5),
        "reaction_p99_ms": probe.percentile_ms(0.99),
        "reaction_samples": len(probe.samples_ms),
        "reaction_missed": probe.missed,
        "events": events,
        "dead_letters": dead,
        "fleet": fleet,
        "replay": replay,
    }


def _report(stack: Stack) -> Path | None:
    """Write the report of the run; None when it cannot be written, which is no reason for a demo to fail."""
    file = stack.folder / "report.html"
    try:
        report.write(
            report.make(
                Target(stack.brokers, stack.clickhouse, stack.topics.prefix, "demo", stack.clickhouse_read),
                ReportRequest("default"),
            ),
            file,
        )
    except SteersmanError as error:
        err.print(f"no report: {error}", markup=False, highlight=False)
        return None
    return file


def _print(settings: DemoSettings, result: dict[str, Any], file: Path | None) -> None:
    if settings.as_json:
        print_json({**result, "report": None if file is None else str(file)})
        return
    base = result["baseline"]

    def change(key: str) -> str:
        return f"{(result[key] / base[key] - 1):+.1%}"

    rows = [
        (
            "latency",
            f"{base['latency_ms'] / 1000:.2f} s",
            f"{result['latency_ms'] / 1000:.2f} s",
            change("latency_ms"),
        ),
        (
            "cost per interaction",
            f"${base['cost_usd']:.4f}",
            f"${result['cost_usd']:.4f}",
            change("cost_usd"),
        ),
        ("quality", f"{base['quality']:.3f}", f"{result['quality']:.3f}", change("quality")),
        ("interactions", base["interactions"], result["interactions"], ""),
    ]
    title = "fleet, from ClickHouse: control group on the static baseline (whole run) against the learned policies (last quarter)"
    print_rows(["", "baseline", "learned", "change"], rows, as_json=False, title=title)
    r = result["replay"]
    keys = [
        k
        for k in ("mean_reward", "last_quarter", "random", "best_fixed", "best_fixed_last_quarter", "oracle")
        if k in r
    ]
    print_rows(keys, [[f"{r[k]:.4f}" for k in keys]], as_json=False, title=f"replay of {r['dataset']}: mean reward")
    p50, p99 = result["reaction_p50_ms"], result["reaction_p99_ms"]
    if p99 is not None:
        out.print(
            f"reaction, feedback sent to a decision elsewhere with the new version: p50 {p50:.0f} ms, p99 {p99:.0f} ms "
            f"({result['reaction_samples']} samples)",
            highlight=False,
        )
    out.print(f"{result['events']:,} events stored, {result['dead_letters']} dead letters", highlight=False)
    if file is not None:
        out.print(f"report with plots, open it in a browser: {file}", markup=False, highlight=False, soft_wrap=True)
    out.print(
        "look further:\n"
        '  bin/steersman sql "SELECT policy, latency_change, cost_change, quality_gain FROM v_uplift"\n'
        '  bin/steersman sql "SELECT policy, arm, count(), avg(utility) FROM v_rewards GROUP BY policy, arm ORDER BY policy, 3 DESC"\n'
        "  bin/steersman report      (before and after, what was chosen, trade-offs; --out report.html for plots)\n"
        "  bin/steersman policy history research/retrieval\n"
        "  bin/steersman demo --keep      (the stack stays up: policy show, trace tail, status)",
        markup=False,
        highlight=False,
    )
