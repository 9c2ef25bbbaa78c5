"""`python -m benchmarks [name ...]`: measure, print, and write the results; all that depends on the machine by default."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from benchmarks import (
    adaptation,
    ceilings,
    credit,
    encoding,
    fleet,
    guard,
    live_replay,
    loop,
    neural,
    new_levels,
    ope,
    open_traces,
    reaction,
    redacting,
    rollup,
    scaling,
    sharding,
    sinking,
    steady,
    trace_stage,
    training,
    warm_start,
)
from benchmarks.environments import LEARNERS, figures_beside_peers
from benchmarks.measure import Figure, add_out, alone, report, say
from steersman.errors import SteersmanError


@dataclass(frozen=True)
class Benchmark:
    """What `make bench` runs under one name.

    Attributes
    ----------
    payload
        What is fed.
    figures
        Measures.
    versions
        Of what is measured besides the packages of this environment.
    learning
        Whether it measures what learners and guards come to, which takes long and is the same on every machine.
    """

    payload: str
    figures: Callable[[], Iterable[Figure]]
    versions: Mapping[str, str] = field(default_factory=dict)
    learning: bool = False


BENCHMARKS = {
    "rollup": Benchmark(rollup.PAYLOAD, rollup.figures, rollup.VERSIONS),
    "loop": Benchmark(loop.PAYLOAD, loop.figures, loop.VERSIONS),
    "reaction": Benchmark(reaction.PAYLOAD, reaction.figures, reaction.VERSIONS),
    "choose": Benchmark(
        "context of numbers as a dict; policies after 2,000 rewards; ours hands the decision's event to a sender with a producer in "
        "memory, which is idle when the next call begins; the others only name the arm, mabwiser and river without a propensity",
        partial(figures_beside_peers, "benchmarks.deciding"),
        LEARNERS.versions(("mabwiser", "river", "vowpalwabbit")),
    ),
    "features": Benchmark(encoding.PAYLOAD, encoding.figures),
    "learn": Benchmark(
        "batches of 500. Ours: reward records as dicts, checked and deduplicated, four components; the stage with its ledger, "
        "snapshots and state dumps at the pace of a worker that always has work. The others: one target; vowpalwabbit from text",
        partial(figures_beside_peers, "benchmarks.learning"),
        LEARNERS.versions(("mabwiser", "river", "vowpalwabbit")),
    ),
    "neural": Benchmark(neural.PAYLOAD, neural.figures, neural.VERSIONS),
    "training": Benchmark(training.PAYLOAD, training.figures, training.VERSIONS),
    "shards": Benchmark(sharding.PAYLOAD, sharding.figures),
    "credit": Benchmark(credit.PAYLOAD, credit.figures, learning=True),
    "fleet": Benchmark(fleet.PAYLOAD, fleet.figures, learning=True),
    "tracer": Benchmark(
        "a span with two fields inside another, begun and ended; the sending thread encodes to memory (ours) or keeps spans in "
        "memory (OpenTelemetry's BatchSpanProcessor); cpu is that of the calling thread",
        partial(figures_beside_peers, "benchmarks.tracing"),
        LEARNERS.versions(("opentelemetry-sdk",)),
    ),
    "redaction": Benchmark(redacting.PAYLOAD, redacting.figures),
    "traces": Benchmark(trace_stage.PAYLOAD, lambda: chain(trace_stage.figures(), open_traces.figures())),
    "sink": Benchmark(sinking.PAYLOAD, sinking.sink),
    "adaptation": Benchmark(adaptation.PAYLOAD, adaptation.figures, learning=True),
    "new_levels": Benchmark(new_levels.PAYLOAD, new_levels.figures, learning=True),
    "warm_start": Benchmark(warm_start.PAYLOAD, warm_start.figures, learning=True),
    "ceilings": Benchmark(ceilings.PAYLOAD, ceilings.figures, learning=True),
    "steady": Benchmark(steady.PAYLOAD, steady.figures, learning=True),
    "scaling": Benchmark(scaling.PAYLOAD, scaling.figures, scaling.VERSIONS),
    "ope": Benchmark(ope.PAYLOAD, ope.figures, learning=True),
    "guard": Benchmark(guard.PAYLOAD, guard.figures, guard.VERSIONS, learning=True),
    "live": Benchmark(live_replay.payload(), live_replay.figures, live_replay.VERSIONS, learning=True),
}

_EPILOG = """\
examples:
  python -m benchmarks                 what depends on the machine, about half an hour
  python -m benchmarks --learning      what learners and guards come to, about as long again
  python -m benchmarks choose learn    two of them
  python -m benchmarks.rollup --help   options of one: rollup, loop, reaction, scaling, credit, fleet
  python -m benchmarks.page            make benchmarks/README.md from the results that are there
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmarks named; those of speed by default.

    Raises
    ------
    SteersmanError
        When one failed; the others have been run all the same.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--learning", action="store_true", help="run those of what learners and guards come to")
    add_out(parser)
    options = parser.parse_args(argv)
    failed = []
    names = options.names or [name for name, one in BENCHMARKS.items() if one.learning == options.learning]
    begun = time.monotonic()
    for number, name in enumerate(names, 1):
        benchmark, started = BENCHMARKS[name], time.monotonic()
        say(f"{name}: {number} of {len(names)}, {(started - begun) / 60:.0f} minutes so far")
        try:
            path = report(name, benchmark.payload, benchmark.figures(), versions=benchmark.versions, folder=options.out)
        except SteersmanError as error:
            say(f"{name} failed: {error}")
            failed.append(name)
        else:
            print(f"-> {path} ({time.monotonic() - started:.0f} s)", flush=True)
    if failed:
        raise SteersmanError(", ".join(failed))


if __name__ == "__main__":
    raise SystemExit(alone(main))
