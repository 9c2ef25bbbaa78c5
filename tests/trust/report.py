"""`python -m tests.trust.report` (`make trust`): every attack of a release, and what came of it in one file.

Each module ``part_<name>.py`` of this folder is a part; what it finds replaces what the file had of it, the others stay.
Exit code 0 when every bar held.

Examples: python -m tests.trust.report · python -m tests.trust.report --parts policies,hostile --seed 7 --quick
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, add_out, alone, header, say, write
from steersman.errors import SteersmanError
from tests.trust.part import Found

PAYLOAD = "attacks on the running parts: see the docstring of each part in tests/trust"


def parts() -> list[str]:
    """Names of the parts there are."""
    return sorted(file.stem.removeprefix("part_") for file in Path(__file__).parent.glob("part_*.py"))


def totals(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put the parts' totals together."""
    together: dict[str, Any] = {}
    for name in sorted(found):
        together.update(found[name]["totals"])
    return together


def run(names: Sequence[str], quick: bool, seed: int, folder: Path) -> int:
    """Run parts one after the other, write the results and return how many bars were missed."""
    kept: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        kept = dict(json.loads((folder / "trust.json").read_text())["parts"])
    missed = 0
    for name in names:
        say(f"{name}: begins")
        started = time.monotonic()
        found: Found = importlib.import_module(f"tests.trust.part_{name}").run(quick, seed, say)
        seconds = round(time.monotonic() - started, 1)
        kept[name] = {
            "seed": seed, "quick": quick, "seconds": seconds, "totals": dict(found.totals),
            "problems": found.problems, "detail": found.detail,
        }  # fmt: skip
        missed += len(found.problems)
        for problem in found.problems:
            say(f"{name}: MISSED: {problem}")
        say(f"{name}: {json.dumps(dict(found.totals))} in {seconds} s")
        head = header(PAYLOAD, "python -m tests.trust.report")
        path = write("trust", head, {**totals(kept), "parts": kept}, folder)
    if names:
        say(f"written: {path}")
    return missed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts; returns the exit code."""
    known = parts()
    parser = argparse.ArgumentParser(
        prog="python -m tests.trust.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(known), help=f"some of {','.join(known)} (default all)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn (default 1)")
    parser.add_argument("--quick", action="store_true", help="small sizes, as in the tests; results only with --out")
    add_out(parser)
    options = parser.parse_args(argv)
    names = [name.strip() for name in options.parts.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(known)}")
    folder = options.out or (Path(tempfile.mkdtemp(prefix="trust-")) if options.quick else RESULTS)

    def work() -> None:
        if missed := run(names, options.quick, options.seed, folder):
            raise SteersmanError(f"{missed} bars were missed")

    return alone(work)


if __name__ == "__main__":
    sys.exit(main())
