"""`python -m benchmarks.workers`: 1 to 4 workers and back under load, and how much faster 4 are than 1. Nothing lost, nothing doubled.

Workers are members of Faust's consumer group; the hot policy is learned in four shards; two sinks share the topics.

``moving``: under a steady load 1, 2, 4, 2 and 1 workers, one after the other. ``log``: a log written beforehand, which the workers have
already fetched when they may begin, so that what they share with the broker is no more than the delivery of their outputs;
``events_per_s`` is what the clock says on this machine, ``broker_cores`` what the broker took meanwhile. Whatever ran, a check that
knows only the producer's ledger compares every record, and `steersman verify` has the last word.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import broker
from benchmarks.measure import add_out, alone, header, say, write
from benchmarks.usage import cpu_of
from console.children import Child, ChildFailed, python
from steersman.errors import SteersmanError
from tests.faults.check import check
from tests.faults.fleet import SINK
from tests.faults.platform import Platform
from tests.faults.traces import Mix

COUNTS = (1, 2, 4)
STEPS = (1, 2, 4, 2, 1)
EVENTS = 120_000
"""In the log: no more than one worker holds ready (64 batches of 2,000 records)."""
REPEATS = 3
RATE, STEP_S = 2_000.0, 12.0
PARTITIONS = 12
BAR = 1.6
POLICIES = Path(__file__).with_name("workers.toml")
PAYLOAD = (
    f"traces of about 9 events with decisions and feedback, repeats among them; {PARTITIONS} partitions, 3 policies of which one is hot and "
    "learned in 4 shards, 2 sinks; all on one machine"
)
_WAIT_S = 240.0
_IDLE_CORES = 0.15


class Differs(SteersmanError):
    """Something was lost, doubled or altered."""


@dataclass(frozen=True)
class Row:
    """What so many workers did.

    Attributes
    ----------
    phase
        ``moving`` or ``log``.
    workers, events_per_s
        How many, and events a second: as they came (``moving``), or as fast as they could (``log``).
    lost, doubled
        Of all records, rewards, dead letters and learned rewards of the run; altered ones count as doubled.
    behind_s
        How far the workers were behind at the end of the step; unit: seconds of load. None for ``log``.
    cpu_us_per_event, broker_cores
        CPU time of all workers an event, and cores that the broker used meanwhile. None for ``moving``.
    """

    phase: str
    workers: int
    events_per_s: float
    lost: int
    doubled: int
    behind_s: float | None = None
    cpu_us_per_event: float | None = None
    broker_cores: float | None = None


def moving(rate: float = RATE, step_s: float = STEP_S, steps: Sequence[int] = STEPS) -> list[Row]:
    """Change the number of workers under load."""
    with _platform("moving", workers=steps[0], sinks=2) as (platform, folder):
        ledger = folder / "ledger.jsonl"
        # More than the steps need: what is left when they are over comes at once.
        load = platform.load(1, int(2.5 * rate * step_s * len(steps)), rate, ledger, Mix(duplicates=0.05))
        watch = platform.watch("streams")
        seen: list[tuple[int, float, float]] = []
        for workers in steps:
            platform.fleet.scale(workers)
            _share(platform, workers)
            began, first = time.monotonic(), _committed(watch)
            while time.monotonic() - began < step_s:
                time.sleep(0.2)
            progress = watch.look()
            took = time.monotonic() - began
            seen.append((workers, (_committed(watch) - first) / took, (progress.lag if progress else 0) / rate))
            say(f"workers: {workers}: {seen[-1][1]:,.0f} records/s done, {seen[-1][2]:.1f} s behind")
        watch.close()
        load.signal(signal.SIGUSR1)
        lost, doubled = _settled(platform, load, ledger)
    return [Row("moving", w, round(r, 1), lost, doubled, behind_s=round(b, 2)) for w, r, b in seen]


def from_log(workers: int, events: int = EVENTS) -> Row:
    """Let so many workers work a log off."""
    with tempfile.TemporaryDirectory() as results:
        gate = Path(results) / "gate"

        def command(name: str) -> list[str]:
            result = str(Path(results) / f"{name}.json")
            return python("benchmarks.timed_worker", "--result", result, "--gate", str(gate), "--stages", "trace,learn")

        with _platform(f"log-{workers}", workers=0, sinks=0, worker=command) as (platform, folder):
            ledger = folder / "ledger.jsonl"
            load = platform.load(2, events, 0, ledger, Mix(duplicates=0.05))
            platform.wait_until(lambda: load.exit_code is not None, _WAIT_S, "the log")
            acked = json.loads(load.tail(1))["acked"]
            platform.fleet.scale(workers)
            _share(platform, workers)
            pid = platform.kafka.brokers[0].child.pid
            _await_idle(pid)
            began, before = time.monotonic(), cpu_of({"broker": pid})["broker"]
            gate.touch()
            watch = platform.watch("streams")
            platform.wait_until(
                lambda: (look := watch.look()) is not None and look.lag == 0, _WAIT_S, "the log worked off"
            )
            watch.close()
            used, passed = cpu_of({"broker": pid})["broker"] - before, time.monotonic() - began
            for name in (SINK, f"{SINK}-2"):
                platform.fleet.start_sink(name)
            lost, doubled = _settled(platform, load, ledger)
        timed = [one for file in Path(results).glob("*.json") if (one := json.loads(file.read_text()))["records"]]
    wall = max(one["last"] for one in timed) - min(one["first"] for one in timed)
    cpu = sum(one["cpu_s"] for one in timed)
    row = Row(
        "log", workers, round(acked / wall, 1), lost, doubled,
        cpu_us_per_event=round(cpu / acked * 1e6, 2), broker_cores=round(used / passed, 2),
    )  # fmt: skip
    say(f"workers: {row}")
    return row


@contextmanager
def _platform(name: str, **options: Any) -> Iterator[tuple[Platform, Path]]:
    with tempfile.TemporaryDirectory(prefix="steersman-workers-", ignore_cleanup_errors=True) as folder:
        # As in production: what the fault runs shorten, to be caught in the act more often, is dear.
        env = {
            "STEERSMAN_CHECKPOINT_INTERVAL_S": "2",
            "STEERSMAN_LEARNER_CHECKPOINT_INTERVAL_S": "3",
            "STEERSMAN_SESSION_TIMEOUT_S": "20",
        }
        with Platform(Path(folder), name, partitions=PARTITIONS, policies=POLICIES, env=env, **options) as platform:
            yield platform, Path(folder)


def _settled(platform: Platform, load: Child, ledger: Path) -> tuple[int, int]:
    """Wait for everything, and return what is lost and what is doubled or altered.

    Raises
    ------
    Differs
        When `steersman verify` finds more than the check.
    """
    platform.wait_until(lambda: load.exit_code is not None, _WAIT_S, "the end of the load")
    if load.exit_code:
        raise ChildFailed(f"the load ended with exit code {load.exit_code}:\n{load.tail()}")
    verified = platform.settle(_WAIT_S, [ledger])
    findings = check(platform.kafka.direct, platform.gateway.url, platform.topics, [ledger])
    for finding in findings:
        say(f"workers: {finding}")
    lost, doubled = sum(f.lost for f in findings), sum(f.doubled + f.altered for f in findings)
    if not verified["ok"] and not (lost or doubled):
        raise Differs(f"steersman verify: {[one for one in verified['equations'] if not one['ok']]}")
    say(f"workers: steersman verify: {'ok' if verified['ok'] else 'NOT ok'}, {len(verified['equations'])} equations")
    return lost, doubled


def _share(platform: Platform, workers: int) -> None:
    """Wait until so many workers share all partitions of both topics."""

    def shared() -> bool:
        shares = broker.assigned(platform.kafka.direct, f"{platform.topics.prefix}-streams")
        return len(shares) == workers and sum(shares) == 2 * PARTITIONS

    platform.wait_until(shared, _WAIT_S, "the workers to share the partitions")


def _await_idle(pid: int) -> None:
    """Wait until a process does next to nothing for two seconds."""
    quiet, deadline = 0, time.monotonic() + 60
    while quiet < 4 and time.monotonic() < deadline:
        before, began = cpu_of({"broker": pid})["broker"], time.monotonic()
        time.sleep(0.5)
        cores = (cpu_of({"broker": pid})["broker"] - before) / (time.monotonic() - began)
        quiet = quiet + 1 if cores < _IDLE_CORES else 0


def _committed(watch: Any) -> int:
    progress = watch.look()
    return 0 if progress is None else sum(progress.committed.values())


def summed(rows: Sequence[Row]) -> dict[str, Any]:
    """Return how many times as fast the most workers are as one, by the medians.

    ``by_clock`` is what this machine did, with the broker on the same cores. ``by_cpu`` is what it would do were the broker and all
    else elsewhere: as many cores as there are workers and cores, each at what an event costs a worker.
    """
    cores = os.cpu_count() or 1

    def median(workers: int, of: Callable[[Row], float]) -> float:
        return statistics.median(of(row) for row in rows if row.phase == "log" and row.workers == workers)

    counts = sorted({row.workers for row in rows if row.phase == "log"})
    one, most = counts[0], counts[-1]
    cost = {workers: median(workers, lambda r: r.cpu_us_per_event or 0.0) for workers in (one, most)}
    by_cpu = min(most, cores) / min(one, cores) * cost[one] / cost[most]
    return {
        "workers": most,
        "cores": cores,
        "by_clock": round(median(most, lambda r: r.events_per_s) / median(one, lambda r: r.events_per_s), 2),
        "by_cpu": round(by_cpu, 2),
        "bar": BAR,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write `workers.json`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.workers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python -m benchmarks.workers --events 30000 --repeats 1 --step 6 --out /tmp/bench",
    )
    parser.add_argument("--events", type=int, default=EVENTS, help=f"in the log (default {EVENTS})")
    parser.add_argument(
        "--repeats", type=int, default=REPEATS, help=f"of each count of workers on the log (default {REPEATS})"
    )
    parser.add_argument(
        "--rate", type=float, default=RATE, help=f"load while they move, events a second (default {RATE:g})"
    )
    parser.add_argument("--step", type=float, default=STEP_S, help=f"seconds of each step of that (default {STEP_S:g})")
    add_out(parser)
    options = parser.parse_args(argv)
    rows = moving(options.rate, options.step)
    for _ in range(options.repeats):
        rows += [from_log(workers, options.events) for workers in COUNTS]
    total = summed(rows)
    for row in rows:
        print(
            f"workers {row.phase:7} {row.workers} workers: {row.events_per_s:10,.0f} events/s, lost {row.lost}, doubled {row.doubled}"
        )
    print(f"workers {json.dumps(total)}")
    head = header(PAYLOAD, "python -m benchmarks.workers", broker.VERSIONS)
    path = write("workers", head, {"rows": [asdict(row) for row in rows], "scale": total}, options.out)
    say(f"-> {path}")
    if any(row.lost or row.doubled for row in rows):
        raise Differs("something was lost or doubled, see the rows")


if __name__ == "__main__":
    raise SystemExit(alone(main))
