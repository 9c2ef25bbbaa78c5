"""`python -m benchmarks.rollup`: one job, 10 s windows of count, cost and tokens, done by us and by the peers.

Apache Kafka is on core 0, the system measured on core 1. Each system takes a topic that was filled beforehand; time
counts from its first record to its last; what had been fetched by then is one fetch of at most 5,000 records, for
everyone. Every result is checked against what must come out.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import broker
from benchmarks.environments import STREAMING
from benchmarks.measure import Figure, add_out, alone, report, say, spread
from benchmarks.payload import PAYLOAD as TRACES
from benchmarks.rollup_job import PARTITIONS, Job, check, make_job
from benchmarks.rollup_systems import SYSTEMS, Outcome, System

EVENTS = 400_000
REPEATS = 3
PAYLOAD = (
    f"{TRACES}; {PARTITIONS} partitions, records keyed by (tenant, agent, operation), 10 s windows of event time, 10,000 "
    "events per second of event time. Faust's table and Quix keep a changelog in Kafka, Faust's plain agent, Bytewax and our 'rollup "
    "job alone' (an agent of a few lines on the batch transport) keep their sums in memory only. 'worker --stages trace' is the "
    "platform's own: it also validates, joins rewards, drops repeats, keeps a ledger and saves its state"
)
VERSIONS = broker.VERSIONS | STREAMING.versions(("faust-streaming", "quixstreams", "bytewax"))


def figures(events: int = EVENTS, repeats: int = REPEATS, systems: Sequence[System] = SYSTEMS) -> Iterator[Figure]:
    """Measure every system `repeats` times, in turns.

    Raises
    ------
    WrongResult
        When a system counted something else.
    """
    say(f"rollup: making {events:,} events")
    job = make_job(0, events, broker.now_us())
    outcomes: dict[str, list[Outcome]] = {system.name: [] for system in systems}
    with broker.kafka(pinned=True) as (brokers, folder):
        for repeat in range(1, repeats + 1):
            for number, system in enumerate(systems):
                name = f"{re.sub('[^a-z]+', '-', system.name.lower())}-{repeat}-{number}"
                outcome = _run(system, job, brokers, name, folder)
                outcomes[system.name].append(outcome)
                say(f"rollup {repeat}/{repeats}: {system.name}: {outcome.rate:,.0f}/s, {outcome.cpu_us:.1f} us of CPU")
    for name, runs in outcomes.items():
        cpu_us, _, _ = spread([run.cpu_us for run in runs])
        yield Figure(name, "throughput", "events/s", *spread([run.rate for run in runs]), len(runs), cpu_us)


def _run(system: System, job: Job, brokers: str, name: str, folder: Path) -> Outcome:
    count = max(100, int(len(job.records) * system.share))
    with tempfile.TemporaryDirectory(dir=folder, prefix="system-") as own:
        outcome = system.run(brokers, name, Path(own), job.first(count))
    if outcome.windows is not None:
        check(system.name, job.expected(count), outcome.windows, job.closed_from_us)
    return outcome


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write `rollup.json`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rollup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python -m benchmarks.rollup --events 20000 --repeats 1 --systems bytewax 'rollup job' --out /tmp/bench",
    )
    parser.add_argument("--events", type=int, default=EVENTS, help=f"of the fastest systems (default {EVENTS})")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"default {REPEATS}")
    parser.add_argument("--systems", nargs="+", metavar="PART", help="only those with one of these in their name")
    add_out(parser)
    options = parser.parse_args(argv)
    chosen = [s for s in SYSTEMS if not options.systems or any(p.lower() in s.name.lower() for p in options.systems)]
    if not chosen:
        parser.error(f"no such system; there are {', '.join(s.name for s in SYSTEMS)}")
    found = figures(options.events, options.repeats, chosen)
    report("rollup", PAYLOAD, found, versions=VERSIONS, folder=options.out)


if __name__ == "__main__":
    raise SystemExit(alone(main))
