"""`python -m benchmarks.soak`: hours of work in which nothing grows: memory and log of every process under a steady load.

Apache Kafka, worker, sink, ClickHouse (chDB), doors and page run under a load of traces, an agent service that decides and
reports, visitors at the doors and viewers of the page. Once the warm-up is over (traces are remembered for a horizon, caches
fill) the memory of every process is fitted by a line. At the end everything must be stored.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import broker
from benchmarks.lines import Line, line_chart
from benchmarks.loop_platform import FEED, LoadedPlatform, WrongCount, environment, loaded_platform
from benchmarks.measure import RESULTS, add_out, alone, header, say, write
from benchmarks.memory import rss_of, slope
from benchmarks.payload import PAYLOAD as TRACES
from benchmarks.payload import TENANTS
from benchmarks.soak_agent import EVENTS
from benchmarks.soak_visitors import SPANS
from benchmarks.usage import cpu_of
from console.children import Child, ChildFailed, python
from sinks.clickhouse import connect

RATE = 5_000.0
MINUTES, WARM_UP_MINUTES = 40.0, 10.0
HORIZON_S = 300.0
BAR_MB_PER_MIN = 1.0
AGENT_RATE, VISIT_RATE = 20.0, 5.0
"""Requests a second of the agent service, and of the visitors at the doors."""
_SAMPLE_S, _TELL_S = 5.0, 60.0
_OURS = ("broker", "worker", "sink", "gateway", "doors", "page", "agent")
"""Processes that the bar is for; those of the load are measured as well."""
MISSING = ("events_not_stored", "decisions_not_rewarded", "dead_letters")
_SETTLE_S = 300.0
_DEAD = "SELECT count() FROM dead_letters"
_STORED = "SELECT count() FROM trace_events"
_UNREWARDED = (
    "SELECT (SELECT count() FROM trace_events WHERE kind = 'DECISION') - (SELECT uniqExact(decision_id) FROM rewards)"
)
_JVM_LINE = re.compile(r"^\S+ \S+ (WARN|ERROR|FATAL) (.*)$")
EXPLAINED: Mapping[str, str] = {
    r"^Timer \w+ is overlapping": "a timer of Faust's fired late: the event loop was at a batch, or the machine had other work",
}
"""Pattern of what a log may say at WARNING or above -> why it may."""


@dataclass
class Soak:
    """What was seen.

    Attributes
    ----------
    minutes
        Since the load began, of each sample; unit: minutes.
    rss
        Resident set of each process at these times; unit: MB.
    cpu_s
        CPU time of each process during the time measured; unit: seconds.
    events, seconds
        Events that the broker took during the time measured, and how long it was.
    worker_lag, sink_lag
        Records that each was behind.
    """

    minutes: list[float] = field(default_factory=list)
    rss: dict[str, list[float]] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    events: int = 0
    seconds: float = 0.0
    worker_lag: list[int] = field(default_factory=list)
    sink_lag: list[int] = field(default_factory=list)

    def take(self, minute: float, used: Mapping[str, float], lags: tuple[int | None, int | None]) -> None:
        """Add a sample."""
        self.minutes.append(minute)
        for name, mb in used.items():
            self.rss.setdefault(name, []).append(mb)
        for kept, lag in zip((self.worker_lag, self.sink_lag), lags, strict=True):
            if lag is not None:
                kept.append(lag)


@dataclass(frozen=True)
class Row:
    """Memory of one process.

    Attributes
    ----------
    process, minutes, events_per_s
        Whose, how long it was measured after the warm-up, and the load.
    rss_slope_mb_per_min, slope_error
        By least squares, and the standard error of that.
    rss_first_mb, rss_last_mb, rss_max_mb
        At the end of the warm-up, at the end, and the most ever.
    cpu_us_per_event
        Of all the platform's events; unit: microseconds.
    ok
        Whether the slope is below the bar.
    """

    process: str
    minutes: float
    events_per_s: float
    rss_slope_mb_per_min: float
    slope_error: float
    rss_first_mb: float
    rss_last_mb: float
    rss_max_mb: float
    cpu_us_per_event: float
    ok: bool


def rows(soak: Soak, warm_up: float) -> list[Row]:
    """Fit the memory of every process after so many minutes.

    Raises
    ------
    ValueError
        When there are too few samples for a slope.
    """
    first = next((i for i, minute in enumerate(soak.minutes) if minute >= warm_up), len(soak.minutes))
    at = soak.minutes[first:]
    found = []
    for name, values in soak.rss.items():
        if len(values) != len(soak.minutes):
            raise ChildFailed(f"{name} was not there all the time")
        rise, error = slope(at, values[first:])
        found.append(
            Row(
                process=name,
                minutes=round(at[-1] - at[0], 2),
                events_per_s=round(soak.events / soak.seconds, 1),
                rss_slope_mb_per_min=round(rise, 4),
                slope_error=round(error, 4),
                rss_first_mb=round(values[first], 1),
                rss_last_mb=round(values[-1], 1),
                rss_max_mb=round(max(values), 1),
                cpu_us_per_event=round(soak.cpu_s.get(name, 0.0) / max(1, soak.events) * 1e6, 2),
                ok=rise < BAR_MB_PER_MIN,
            )
        )
    return found


def plot(soak: Soak, warm_up: float, found: Sequence[Row]) -> str:
    """Draw the memory of the platform's processes over time."""
    by_name = {row.process: row for row in found}
    lines = [
        Line(f"{name} {by_name[name].rss_slope_mb_per_min:+.2f} MB/min", soak.minutes, soak.rss[name])
        for name in sorted(_OURS, key=lambda name: -by_name[name].rss_last_mb)
    ]
    title = f"Memory at {found[0].events_per_s:,.0f} events/s; the warm-up is shaded"
    return line_chart(title, "minutes", "resident set, MB", lines, warm_up)


def run(
    rate: float, minutes: float, warm_up: float, *, kafka: bool = True, keep: Path | None = None
) -> tuple[Soak, dict[str, Any]]:
    """Load the platform for so many minutes.

    Parameters
    ----------
    rate
        Events a second, of all sources.
    minutes, warm_up
        How long, and how much of it does not count.
    kafka
        Apache Kafka, or else the embedded broker.
    keep
        Folder for logs and samples, None for none.

    Returns
    -------
    tuple of (Soak, dict)
        What was measured, and what the store (``missing``: see `MISSING`), the logs and the load's processes say.
    """
    beside = AGENT_RATE * EVENTS + VISIT_RATE * (SPANS + 2)
    # The Java heap is touched at once: how far the collector lets it grow says nothing about leaks.
    variables = {"JAVA_TOOL_OPTIONS": "-Xms512m -XX:+AlwaysPreTouch"} if kafka else {}
    variables |= {"STEERSMAN_TENANT": TENANTS[0], "STEERSMAN_TRACE_HORIZON_S": str(HORIZON_S)}
    with environment(variables), loaded_platform(kafka=kafka) as platform:
        logs = platform.stack.logs
        try:
            with _visited(platform) as guests, platform.feeding(max(1.0, rate - beside)) as feed:
                pids = platform.stack.pids() | {FEED: feed.pid} | {child.name: child.pid for child in guests}
                soak = _watch(platform, pids, minutes, warm_up)
            loads = {child.name: json.loads(child.tail(1)) for child in guests}
            missing = _missing(platform, _sent(platform, loads))
            return soak, {"missing": missing, "logs": logged(logs), "load": loads, "bytes": _bytes(platform)}
        finally:
            if keep is not None:
                shutil.copytree(logs, keep, dirs_exist_ok=True)


@contextlib.contextmanager
def _visited(platform: LoadedPlatform) -> Iterator[list[Child]]:
    """Run an agent service and visitors beside it."""
    stack = platform.stack
    commands = {
        "agent": python("benchmarks.soak_agent", "--brokers", stack.brokers, "--rate", str(AGENT_RATE)),
        "visitors": python(
            "benchmarks.soak_visitors", "--doors", stack.doors, "--page", stack.page, "--rate", str(VISIT_RATE)
        ),
    }
    children: list[Child] = []
    codes = {}
    try:
        for name, command in commands.items():
            child = Child(name, command, stack.logs)
            children.append(child)
            child.wait_until(lambda c=child: '"ready"' in c.log.read_text(), 60, "working")  # type: ignore[misc]
        yield children
    finally:
        codes = {child.name: child.stop(grace_s=30) for child in children}
    if bad := [child for child in children if codes[child.name]]:
        raise ChildFailed(f"{bad[0].name} ended with exit code {codes[bad[0].name]}:\n{bad[0].tail()}")


def _watch(platform: LoadedPlatform, pids: Mapping[str, int], minutes: float, warm_up: float) -> Soak:
    soak, began = Soak(), time.monotonic()
    told, first, measured, cpu = began, platform.end(), began, cpu_of(pids)
    number = 0
    while (passed := time.monotonic() - began) < minutes * 60:
        if measured == began and passed >= warm_up * 60:
            first, measured, cpu = platform.end(), time.monotonic(), cpu_of(pids)
        platform.stack.check()
        used, lags = rss_of(pids), platform.lags()
        soak.take((time.monotonic() - began) / 60, used, lags)
        if time.monotonic() - told >= _TELL_S:
            told = time.monotonic()
            memory = ", ".join(f"{name} {mb:.0f}" for name, mb in used.items())
            say(
                f"soak: {passed / 60:.0f} of {minutes:g} min, behind {lags[0]} (worker) and {lags[1]} (sink) records; MB: {memory}"
            )
        number += 1
        interval = min(_SAMPLE_S, minutes * 60 / 20)
        time.sleep(max(0.0, began + number * interval - time.monotonic()))
    soak.events, soak.seconds = platform.end() - first, time.monotonic() - measured
    soak.cpu_s = {name: used - cpu.get(name, 0.0) for name, used in cpu_of(pids).items()}
    return soak


def _sent(platform: LoadedPlatform, loads: Mapping[str, Any]) -> int:
    """Return the events that all sources have sent: an OTLP trace is its spans and its end."""
    taken = loads["visitors"]["seen"]
    spans, feedback = (int(taken.get(f"{path} 200", 0)) for path in ("/v1/traces", "/v1/feedback"))
    return platform.sent + int(loads["agent"]["requests"]) * EVENTS + spans * (SPANS + 1) + feedback


def _missing(platform: LoadedPlatform, sent: int) -> dict[str, int]:
    """Return `MISSING`, all 0 as soon as everything is stored; ticks go on for as long as traces are forgotten, so lag says nothing."""
    with contextlib.closing(connect(platform.stack.clickhouse)) as client:

        def missing() -> dict[str, int]:
            stored, unrewarded, dead = (
                int(client.query(sql).result_rows[0][0]) for sql in (_STORED, _UNREWARDED, _DEAD)
            )
            return dict(zip(MISSING, (sent - stored, unrewarded, dead), strict=True))

        platform.stack.wait(lambda: not any(missing().values()), _SETTLE_S)
        return missing()


def _bytes(platform: LoadedPlatform) -> dict[str, dict[str, float]]:
    """Return what is on disk: bytes an event of each topic's log (compressed by nobody), and bytes a row of each table."""
    events = max(1, platform.end())
    logs: Counter[str] = Counter()
    for segment in (platform.stack.folder / "kafka").rglob("*.log"):
        if found := re.fullmatch(r"(.+)-\d+", segment.parent.name):
            logs[found[1]] += segment.stat().st_size
    with contextlib.closing(connect(platform.stack.clickhouse)) as client:
        parts = client.query(
            "SELECT table, sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase() "
            "GROUP BY table ORDER BY table"
        ).result_rows
    return {
        "topic_bytes_per_event": {topic: round(size / events, 2) for topic, size in sorted(logs.items())},
        "table_bytes_per_row": {table: round(size / max(1, count), 2) for table, count, size in parts},
        "table_rows_per_event": {table: round(count / events, 4) for table, count, _ in parts},
    }


def logged(folder: Path) -> list[dict[str, object]]:
    """Return what the logs of a folder say at WARNING or above: process, level, what, how often, and why it may."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for file in sorted(folder.glob("*.log")):
        for line in file.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                said = json.loads(line)
                if said.get("level") in ("warning", "error", "critical"):
                    seen[file.stem, said["level"], re.sub(r"\d+", "N", str(said["event"]))[:200]] += 1
            elif found := _JVM_LINE.match(line):
                seen[file.stem, found[1].lower(), re.sub(r"\d+", "N", found[2])[:200]] += 1
    return [
        {
            "process": process, "level": level, "event": event, "times": times,
            "explained": next((why for pattern, why in EXPLAINED.items() if re.search(pattern, event)), None),
        }
        for (process, level, event), times in seen.items()
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write `soak.json` and `soak.svg`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Examples: python -m benchmarks.soak (make soak)   python -m benchmarks.soak --minutes 3 --warm-up 1 --out /tmp/bench",
    )
    parser.add_argument("--rate", type=float, default=RATE, help=f"events a second, of all sources (default {RATE:g})")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"the warm-up included (default {MINUTES:g})")
    parser.add_argument(
        "--warm-up",
        type=float,
        default=WARM_UP_MINUTES,
        help=f"minutes that do not count (default {WARM_UP_MINUTES:g})",
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the logs there")
    add_out(parser)
    options = parser.parse_args(argv)
    soak, said = run(options.rate, options.minutes, options.warm_up, keep=options.keep)
    found = rows(soak, options.warm_up)
    for row in found:
        bar = "ok " if row.ok else "BAD"
        print(f"soak {bar} {row.process:9} {row.rss_slope_mb_per_min:+8.3f} MB/min, {row.rss_last_mb:7.1f} MB")
    payload = (
        f"{TRACES}; an agent service with {AGENT_RATE:g} requests/s, OTLP with {VISIT_RATE:g} x {SPANS} spans/s, feedback, 2 viewers of the "
        f"page; traces are remembered for {HORIZON_S:g} s; 512 MB of Java heap, touched at once"
    )
    head = header(payload, "python -m benchmarks.soak", broker.VERSIONS)
    lags = {"worker": max(soak.worker_lag, default=0), "sink": max(soak.sink_lag, default=0)}
    results = {
        "warm_up_minutes": options.warm_up, "bar_mb_per_min": BAR_MB_PER_MIN, "rows": [asdict(row) for row in found],
        "most_behind_records": lags, **said, "samples": _thinned(soak),
    }  # fmt: skip
    folder = options.out or RESULTS
    path = write("soak", head, results, folder)
    (folder / "soak.svg").write_text(plot(soak, options.warm_up, found))
    say(f"-> {path} and soak.svg beside it")
    if any(said["missing"].values()):
        raise WrongCount(f"{said['missing']}")


def _thinned(soak: Soak) -> dict[str, list[float]]:
    """Return one sample a minute, about."""
    every = max(1, round(60 / _SAMPLE_S))
    return {
        "minutes": [round(m, 2) for m in soak.minutes[::every]],
        **{name: [round(v, 1) for v in values[::every]] for name, values in soak.rss.items()},
    }


if __name__ == "__main__":
    raise SystemExit(alone(main))
