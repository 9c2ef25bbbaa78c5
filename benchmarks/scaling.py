"""`python -m benchmarks.scaling`: one topic, filled beforehand, worked off by 1, 2 and 4 workers of one consumer group.

Nothing is pinned: the broker and all workers share the machine's cores, so the rate can only grow as far as there are cores.
Time counts from the first record that any worker takes to the last that any has done.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import broker
from benchmarks.measure import Figure, add_out, alone, report, say, spread
from benchmarks.payload import PAYLOAD as TRACES
from benchmarks.payload import POLICIES
from benchmarks.rollup_job import make_job
from console.children import Child, ChildFailed, Children, python
from steersman.topics import Topics
from streams.topics import create_topics

EVENTS = 200_000
REPEATS = 2
SETUPS = ((1, 4), (2, 4), (4, 4), (1, 12), (2, 12), (4, 12))
"""Workers, partitions."""
PAYLOAD = f"{TRACES}; trace stage only (join, rollups, ledger, state), a trace's agent decides on its partition"
VERSIONS = broker.VERSIONS
_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Outcome:
    """Records a second of all workers, and CPU time of a record over all of them; units: records/s, microseconds."""

    rate: float
    cpu_us: float


def figures(
    events: int = EVENTS, repeats: int = REPEATS, setups: Sequence[tuple[int, int]] = SETUPS
) -> Iterator[Figure]:
    """Measure every set-up `repeats` times, in turns."""
    say(f"scaling: making {events:,} events")
    messages = {
        partitions: make_job(0, events, broker.now_us(), partitions).first(events)
        for partitions in sorted({partitions for _, partitions in setups})
    }
    outcomes: dict[tuple[int, int], list[Outcome]] = {setup: [] for setup in setups}
    with broker.kafka(pinned=False) as (brokers, folder):
        for repeat in range(1, repeats + 1):
            for workers, partitions in setups:
                name = f"scaling-{workers}-{partitions}-{repeat}"
                with tempfile.TemporaryDirectory(dir=folder) as own:
                    outcome = _run(brokers, name, Path(own), workers, partitions, messages[partitions])
                outcomes[workers, partitions].append(outcome)
                say(
                    f"scaling {repeat}/{repeats}: {workers} workers, {partitions} partitions: {outcome.rate:,.0f}/s, "
                    f"{outcome.cpu_us:.1f} us of CPU"
                )
    for (workers, partitions), runs in outcomes.items():
        system = f"{workers} worker{'s' if workers > 1 else ''}, {partitions} partitions"
        cpu_us, _, _ = spread([run.cpu_us for run in runs])
        yield Figure(system, "throughput", "events/s", *spread([run.rate for run in runs]), len(runs), cpu_us)


def _run(
    brokers: str, name: str, folder: Path, workers: int, partitions: int, messages: Sequence[broker.Message]
) -> Outcome:
    topics = Topics(name)
    create_topics(brokers, topics, partitions)
    broker.fill(brokers, topics.trace, messages)
    gate = folder / "gate"
    environment = {
        "STEERSMAN_BROKERS": brokers, "STEERSMAN_TOPIC_PREFIX": name, "STEERSMAN_POLICIES": str(POLICIES),
        "STEERSMAN_PARTITIONS": str(partitions),
    }  # fmt: skip
    results = [folder / f"worker{number}.json" for number in range(workers)]
    group = f"{name}-streams"
    committed = broker.Committed(brokers, group, topics.trace, partitions)
    try:
        with Children(folder) as children:
            crew = [
                children.start(
                    result.stem,
                    python("benchmarks.timed_worker", "--result", str(result), "--gate", str(gate)),
                    environment,
                )
                for result in results
            ]
            _await(
                crew, lambda: _settled(broker.assigned(brokers, group), workers, partitions), "sharing the partitions"
            )
            gate.touch()
            _await(crew, lambda: committed.records() >= len(messages), "every record committed")
            for child in crew:
                child.stop(grace_s=20)
        measured = [json.loads(result.read_text()) for result in results]
    finally:
        committed.close()
        broker.drop(brokers, broker.topics_of(brokers, name))
    done = sum(m["records"] for m in measured)
    if done < len(messages):
        raise ChildFailed(f"{name}: {done} records done, not {len(messages)}")
    busy = [m for m in measured if m["records"]]
    wall_s = max(m["last"] for m in busy) - min(m["first"] for m in busy)
    return Outcome(len(messages) / wall_s, sum(m["cpu_s"] for m in busy) / len(messages) * 1e6)


def _settled(shares: Sequence[int], workers: int, partitions: int) -> bool:
    return len(shares) == workers and sum(shares) == partitions


def _await(crew: Sequence[Child], until: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not until():
        for child in crew:
            if child.exit_code is not None:
                raise ChildFailed(f"{child.name} ended with exit code {child.exit_code} before {what}:\n{child.tail()}")
        if time.monotonic() > deadline:
            tails = "\n".join(child.tail() for child in crew)
            raise ChildFailed(f"the workers did not come to '{what}' within {_TIMEOUT_S:g} s:\n{tails}")
        time.sleep(0.2)


def _setup(text: str) -> tuple[int, int]:
    workers, _, partitions = text.partition("x")
    return int(workers), int(partitions)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write `scaling.json`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python -m benchmarks.scaling --events 20000 --repeats 1 --setups 1x4 2x4 --out /tmp/bench",
    )
    parser.add_argument("--events", type=int, default=EVENTS, help=f"in the topic (default {EVENTS})")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"default {REPEATS}")
    parser.add_argument("--setups", type=_setup, nargs="+", default=SETUPS, metavar="WxP", help="workers x partitions")
    add_out(parser)
    options = parser.parse_args(argv)
    found = figures(options.events, options.repeats, options.setups)
    report("scaling", PAYLOAD, found, versions=VERSIONS, folder=options.out)


if __name__ == "__main__":
    raise SystemExit(alone(main))
