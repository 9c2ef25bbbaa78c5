"""`python -m benchmarks [choose] [learn] [tracer]`: measure, print, and write the results."""

from __future__ import annotations

import argparse

from benchmarks.environments import figures_beside_peers
from benchmarks.measure import report

BENCHMARKS = {
    "choose": (
        "context of numbers as a dict; policies after 2,000 rewards; ours hands the decision's event to a sender with a producer in "
        "memory, which is idle when the next call begins; the others only name the arm, mabwiser and river without a propensity",
        "benchmarks.deciding",
    ),
    "learn": (
        "batches of 500. Ours: reward records as dicts, checked and deduplicated, four components; the stage with its ledger, "
        "snapshots and state dumps at the pace of a worker that always has work. The others: one target; vowpalwabbit from text",
        "benchmarks.learning",
    ),
    "tracer": (
        "a span with two fields inside another, begun and ended; the sending thread encodes to memory (ours) or keeps spans in "
        "memory (OpenTelemetry's BatchSpanProcessor); cpu is that of the calling thread",
        "benchmarks.tracing",
    ),
}


def main() -> None:
    """Run the benchmarks named, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="name", help=", ".join(BENCHMARKS))
    for name in parser.parse_args().names or BENCHMARKS:
        payload, module = BENCHMARKS[name]
        print(f"-> {report(name, payload, figures_beside_peers(module))}")


if __name__ == "__main__":
    main()
