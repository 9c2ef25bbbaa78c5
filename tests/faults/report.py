"""`python -m tests.faults.report` (`make faults`): every fault run of a release, and their results in one file.

Parts: ``kills`` (seeds of `tests.faults.run`), ``faust`` (the counting job on plain Faust and on ours,
`benchmarks.faults_plain_faust`), ``broker`` and ``store`` (outages, `tests.faults.outages`). What a part finds replaces
what the file had of it, or with ``--add`` of the same seeds; the others stay. Exit code 0 when ours lost and doubled nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measure import RESULTS, header, write
from console.children import ROOT

PARTS = ("kills", "faust", "broker", "store")
PAYLOAD = (
    "real processes: Apache Kafka, ClickHouse (chDB behind its HTTP gateway), stream workers, sink, a producer of traces with "
    "30 % repeats, 1 % poison, bombs, disorder and garbage; kills at named fault points and at random"
)


TOTALS = ("seeds", "events", "kills", "lost", "doubled", "worst_recovery_s")


def totals(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Sum the parts up: `TOTALS` of the kills, and the same of every system of the comparison under `compared`.

    Parameters
    ----------
    parts
        What the parts found, by name.
    """
    summed: dict[str, Any] = {}
    if "kills" in parts:
        summed = {name: parts["kills"]["found"][name] for name in TOTALS}
    if "faust" in parts:
        compared: dict[str, dict[str, Any]] = {}
        for run in parts["faust"]["found"]:
            one = compared.setdefault(run["system"], {"seeds": [], **dict.fromkeys(TOTALS[1:], 0)})
            one["seeds"].append(run["seed"])
            for name in TOTALS[1:-1]:
                one[name] += run[name]
            one["worst_recovery_s"] = max(one["worst_recovery_s"], run["worst_recovery_s"])
        summed["compared"] = compared
    return summed


def added(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Put the runs of some seeds to those of others, of the same code; a seed that was run again replaces itself."""
    runs = {run["seed"]: run for found in (before, now) for run in found["runs"]}
    ordered = [runs[seed] for seed in sorted(runs)]
    return {
        "seeds": [run["seed"] for run in ordered],
        "events": sum(run["acked"] for run in ordered),
        **{
            name: sum(run[name] for run in ordered)
            for name in ("kills", "lost", "doubled", "written_again", "recoveries")
        },
        "worst_recovery_s": max((run["worst_recovery_s"] for run in ordered), default=0.0),
        "runs": ordered,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)} (default all)")
    parser.add_argument("--seeds", default="1-10", help="of the kills (default 1-10)")
    parser.add_argument("--events", default="200000", help="records of each seed (default 200000)")
    parser.add_argument("--kills", default="30", help="kills of each seed (default 30)")
    parser.add_argument("--faust-seeds", default="1-2", help="of the comparison with Faust (default 1-2)")
    parser.add_argument(
        "--add", action="store_true", help="keep the kills of other seeds that the file has, of the same code"
    )
    args = parser.parse_args(argv)
    commands = {
        "kills": ["tests.faults.run", "--seeds", args.seeds, "--events", args.events, "--kills", args.kills, "--json"],
        "faust": [
            "benchmarks.faults_plain_faust", "--seeds", args.faust_seeds, "--events", "20000", "--kills", "6", "--json",
        ],
        "broker": ["tests.faults.outages", "broker"],
        "store": ["tests.faults.outages", "store"],
    }  # fmt: skip
    parts = args.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    file = RESULTS / "faults.json"
    found: dict[str, Any] = json.loads(file.read_text())["parts"] if file.exists() else {}
    failed = []
    for part in parts:
        done = subprocess.run(
            [sys.executable, "-m", *commands[part]], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            failed.append(part)
        if done.stdout.strip():
            came = json.loads(done.stdout)
            if part == "kills" and args.add and part in found:
                came = added(found[part]["found"], came)
            found[part] = {"command": f"python -m {' '.join(commands[part])}", "found": came}
            write("faults", header(PAYLOAD, "make faults"), {**totals(found), "parts": found})
    print(f"results: {file.relative_to(ROOT)}" + (f"; not as promised: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
