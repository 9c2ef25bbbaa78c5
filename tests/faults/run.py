"""`python -m tests.faults.run`: kill everything, many times, and count what is lost or doubled.

Exit code 0 when nothing is, 4 when something is, 1 when a run did not get through.

Examples
--------
One quick run, as CI makes it::

    python -m tests.faults.run --seeds 1 --events 50000 --kills 20

The release figure, 10 seeds one after another::

    python -m tests.faults.run --seeds 1-10 --events 1000000 --kills 100 --json

Only kills of workers and sink, on a clean load::

    python -m tests.faults.run --seeds 7 --events 20000 --kills 10 --faults none --clean
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from steersman.errors import SteersmanError
from tests.faults.scenario import FAULTS, MIX, Outcome, Plan, Scenario
from tests.faults.traces import Mix

OK, FAILED, PROBLEMS = 0, 1, 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run the seeds; returns the exit code."""
    args = _parse(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    outcomes: list[Outcome] = []
    failed = False

    def say(text: str) -> None:
        print(text, file=sys.stderr if args.json else sys.stdout, flush=True)

    if args.keep is not None:
        args.keep.mkdir(parents=True, exist_ok=True)
    try:
        for seed in args.seeds:
            say(f"seed {seed}")
            folder = Path(tempfile.mkdtemp(prefix=f"faults-{seed}-", dir=args.keep))
            mix = Mix() if args.clean else MIX
            gaps = (args.min_gap, args.max_gap)
            plan = Plan(seed, args.events, args.kills, args.faults, mix, gaps, session_s=args.session)
            try:
                with Scenario(plan, folder, say) as scenario:
                    outcome = scenario.run()
            except (SteersmanError, AssertionError) as error:
                failed = True
                say(f"seed {seed} did not get through, its files are in {folder}: {error}")
                continue
            outcomes.append(outcome)
            for finding in outcome.findings:
                say(f"seed {seed}  {finding}")
            if outcome.verify is not None:
                say(f"seed {seed}  steersman verify: {'ok' if outcome.verify['ok'] else 'NOT ok'}")
                for equation in outcome.verify["equations"]:
                    if not equation["ok"]:
                        say(f"seed {seed}  {json.dumps(equation)}")
            deaths = ", ".join(f"{how} x{count}" for how, count in sorted(outcome.deaths.items()))
            say(f"seed {seed}  deaths: {deaths or 'none'}; fault points missed: {', '.join(outcome.missed) or 'none'}")
            say(f"seed {seed}  {_totals([outcome])}")
            if outcome.ok and args.keep is None:
                shutil.rmtree(folder)
            else:
                say(f"seed {seed}  files: {folder}")
    except KeyboardInterrupt:
        say("interrupted; everything is stopped")
        failed = True
    totals = _totals(outcomes)
    if args.json:
        print(json.dumps({**totals, "runs": [outcome.to_json() for outcome in outcomes]}))
    else:
        say(json.dumps(totals))
    if not all(outcome.ok for outcome in outcomes):
        return PROBLEMS
    return FAILED if failed else OK


def _totals(outcomes: Sequence[Outcome]) -> dict[str, object]:
    return {
        "seeds": [o.seed for o in outcomes],
        "events": sum(o.acked for o in outcomes),
        "kills": sum(o.kills for o in outcomes),
        "lost": sum(o.lost for o in outcomes),
        "doubled": sum(o.doubled for o in outcomes),
        "written_again": sum(o.written_again for o in outcomes),
        "recoveries": sum(o.recoveries for o in outcomes),
        "worst_recovery_s": round(max((o.worst_recovery_s for o in outcomes), default=0.0), 2),
    }


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=_seeds, default=[1], help="a number, a range or a list: 3, 1-10, 1,5,9")
    parser.add_argument("--events", type=int, default=50_000, help="records a run (default 50000)")
    parser.add_argument("--kills", type=int, default=20, help="kills of workers and sink a run (default 20)")
    parser.add_argument(
        "--faults",
        type=_faults,
        default=frozenset(FAULTS),
        help=f"all, none, or some of {','.join(FAULTS)} (default all)",
    )
    parser.add_argument("--min-gap", type=float, default=1.5, help="shortest time between two kills, in seconds")
    parser.add_argument("--max-gap", type=float, default=4.0, help="longest time between two kills, in seconds")
    parser.add_argument(
        "--session", type=float, default=6.0, help="session timeout of the workers, in seconds (default 6)"
    )
    parser.add_argument("--clean", action="store_true", help="no duplicates, poison or disorder in the load")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep data and logs of every run in this folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object; progress goes to standard error")
    return parser.parse_args(argv)


def _seeds(text: str) -> list[int]:
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def _faults(text: str) -> frozenset[str]:
    named = {"all": frozenset(FAULTS), "none": frozenset[str]()}
    faults = named.get(text, frozenset(text.split(",")))
    if unknown := faults - set(FAULTS):
        raise argparse.ArgumentTypeError(f"no such fault: {', '.join(sorted(unknown))}")
    return faults


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
