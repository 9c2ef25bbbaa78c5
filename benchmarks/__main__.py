"""`python -m benchmarks [name ...]`: measure, print, and write the results; all of them by default."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import deciding, loop, reaction, rollup, scaling
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
    """

    payload: str
    figures: Callable[[], Iterable[Figure]]
    versions: Mapping[str, str] = field(default_factory=dict)


BENCHMARKS = {
    "rollup": Benchmark(rollup.PAYLOAD, rollup.figures, rollup.VERSIONS),
    "loop": Benchmark(loop.PAYLOAD, loop.figures, loop.VERSIONS),
    "reaction": Benchmark(reaction.PAYLOAD, reaction.figures, reaction.VERSIONS),
    "choose": Benchmark(deciding.CHOOSE_PAYLOAD, deciding.choose),
    "learn": Benchmark(deciding.LEARN_PAYLOAD, deciding.learn),
    "scaling": Benchmark(scaling.PAYLOAD, scaling.figures, scaling.VERSIONS),
}

_EPILOG = """\
examples:
  python -m benchmarks                 all of them, about 20 minutes
  python -m benchmarks choose learn    two of them
  python -m benchmarks.rollup --help   options of one: rollup, loop, reaction, scaling
  python -m benchmarks.page            make benchmarks/README.md from the results that are there
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmarks named, all by default.

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
    add_out(parser)
    options = parser.parse_args(argv)
    failed = []
    for name in options.names or BENCHMARKS:
        benchmark, started = BENCHMARKS[name], time.monotonic()
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
