"""`python -m benchmarks [choose] [learn] [traces]`: measure, print, and write the results."""

from __future__ import annotations

import argparse

from benchmarks import deciding, trace_stage
from benchmarks.measure import report

BENCHMARKS = {
    "choose": (deciding.CHOOSE_PAYLOAD, deciding.choose),
    "learn": (deciding.LEARN_PAYLOAD, deciding.learn),
    "traces": (trace_stage.PAYLOAD, trace_stage.traces),
}


def main() -> None:
    """Run the benchmarks named, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="name", help=", ".join(BENCHMARKS))
    for name in parser.parse_args().names or BENCHMARKS:
        payload, figures = BENCHMARKS[name]
        print(f"-> {report(name, payload, figures())}")


if __name__ == "__main__":
    main()
