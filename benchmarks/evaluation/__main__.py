"""What our learners and the peers earn on routing data, seeing only the outcome of the arm they chose."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.environments import LEARNERS
from benchmarks.evaluation.chart import Mark, gain_chart
from benchmarks.evaluation.play import Played
from benchmarks.evaluation.runs import CONDITIONS, DELAY, ROOT, SCALAR, Run, Store, is_peer, make
from benchmarks.evaluation.sets import DEFAULT_NAMES, FLEET, PRICES, SIMULATED, file_of
from benchmarks.evaluation.summary import mean_gains, paired, rows, title
from benchmarks.evaluation.update import updated
from benchmarks.measure import RESULTS, add_out, alone, header, say, write
from learners.catalog import LEARNERS as OURS
from steersman.errors import ConfigError

FIRST_ORDER = 100
BEST = "linear"
PEERS = (
    "vw greedy",
    "vw regcbopt",
    "vw squarecb",
    "vw bag",
    "mabwiser linucb",
    "mabwiser lints",
    "river linucb",
    "paretobandit",
    "paretobandit static",
    "plain ucb1",
)
"""Names of `benchmarks.peers.routing`, which can be imported in the peers' environment only."""
CLOSE = (BEST, f"{BEST}{SCALAR}", "vw greedy", "vw regcbopt")
"""The default learner and the peers that come closest to it: more orders as recorded, for a difference worth quoting."""
SLOW = ("mabwiser linucb", "mabwiser lints", "river linucb")

_EPILOG = f"""\
gain = (mean utility - that of the best fixed arm) / (that of the oracle - that of the best fixed arm): 0 is the best single
arm, known in hindsight. Learners see the same encoded contexts in the same orders, and the outcome of the arm they chose.
Ours see its components; as "<learner>{SCALAR}" they see the utility alone, as the peers do.
Conditions: plain; delay (every outcome comes {DELAY} decisions late); drift (best and middle arm trade outcomes half-way).
Runs are kept in .steersman/evaluation: a command that was stopped goes on where it was, and only what changed is run again.

examples:
  make evaluate                                             everything at hand
  python -m benchmarks.evaluation --data DIR                with the data files in DIR
  python -m benchmarks.evaluation --learners linear 'vw greedy' ucb1 --orders 40 --conditions plain
  python -m benchmarks.evaluation --scenarios my.csv.gz@5   a file of your own: columns q:ARM, cost_usd:ARM, e0, e1, ...
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Play what is asked for, and write what came of it."""
    given = _parser().parse_args(argv)
    started = time.monotonic()
    sources, absent = {}, []
    for name in given.scenarios:
        source = file_of(name, given.data)
        if source is None:
            absent.append(name)
            say(f"{name}: its file is not in {given.data}; left out")
        else:
            sources[name] = source
    if not sources:
        raise ConfigError("no scenario has its data here")
    wanted = _runs(given, sources)
    store = Store()
    made = _kept(wanted, store) if given.kept else _play(wanted, store, given.jobs)
    if not made:
        raise ConfigError("none of these runs has been made yet; leave --kept out")
    results = _results(made, given, absent, time.monotonic() - started)
    if given.update:
        results |= updated(json.loads(((given.out or RESULTS) / "learning.json").read_text()), results)
        results["header"]["payload"] += (
            "; rows of learners and scenarios that this call did not play are those of earlier calls"
        )
    if given.json:
        print(json.dumps(results))
    else:
        _show(results)
    if not given.dry:
        path = write("learning", results.pop("header"), results, given.out)
        for file, svg in charts(results).items():
            (path.parent / file).write_text(svg)
        say(f"-> {path} and learning-*.svg beside it ({time.monotonic() - started:.0f} s)")


def _runs(given: argparse.Namespace, sources: dict[str, str]) -> list[Run]:
    wanted = []
    for name, source in sources.items():
        for condition in given.conditions:
            if condition != "plain" and name in (*PRICES, *SIMULATED):
                continue  # they ask nothing new of these
            for learner in given.learners:
                orders = min(given.orders, given.slow_orders) if learner in SLOW else given.orders
                if learner in CLOSE and condition == "plain" and name not in SIMULATED:
                    orders = max(orders, given.close_orders)
                wanted += [
                    Run(name, source, condition, learner, FIRST_ORDER + order, seed)
                    for order in range(orders)
                    for seed in range(given.seeds)
                ]
    return wanted


def _kept(wanted: Sequence[Run], store: Store) -> dict[Run, Played]:
    held = {run: store.get(run) for run in wanted}
    return {run: played for run, played in held.items() if played is not None}


def _play(wanted: Sequence[Run], store: Store, jobs: int) -> dict[Run, Played]:
    made = _kept(wanted, store)
    missing = [run for run in wanted if run not in made]
    say(f"{len(wanted)} runs, {len(wanted) - len(missing)} of them made before")
    began = told = time.monotonic()
    count = 0

    def done(run: Run, played: Played) -> None:
        nonlocal count, told
        count += 1
        made[run] = played
        store.add(run, played)
        now = time.monotonic()
        if now - told >= 5 or count == len(missing):
            told = now
            left = (now - began) / count * (len(missing) - count)
            say(f"{count}/{len(missing)}  {title(run.scenario, run.condition)}: {run.learner}  about {left:.0f} s left")

    if missing:
        make(missing, jobs, done)
    return {run: made[run] for run in wanted}


def _results(
    made: dict[Run, Played], given: argparse.Namespace, absent: Sequence[str], seconds: float
) -> dict[str, Any]:
    payload = (
        f"{given.orders} shuffled orders, as recorded {max(given.orders, given.close_orders)} of {'; '.join(CLOSE)}, at most "
        f"{given.slow_orders} of {'; '.join(SLOW)}; runs says how many; {given.seeds} draws in each order; ours with a new "
        f"snapshot for every 2 % more rewards, the others learn at every reward; this call took {seconds:.0f} s"
    )
    if absent:
        payload += f"; without {', '.join(absent)}, whose files were not at hand"
    versions = LEARNERS.versions(("mabwiser", "paretobandit", "river", "vowpalwabbit"))
    peers = [name for name in given.learners if is_peer(name)]
    drawn = [name for name in given.scenarios if name in SIMULATED]
    real = [name for name in given.scenarios if name not in (*FLEET, *SIMULATED)]
    groups = (
        ("data sets", [name for name in real if name not in PRICES]),
        ("data sets at every price", real),
        ("all scenarios", [name for name in given.scenarios if name not in SIMULATED]),
        ("simulated sets", drawn),
    )
    return {
        "header": header(payload, "python -m benchmarks.evaluation", versions),
        "results": rows(made),
        "mean_gains": [
            row
            for over, scenarios in groups
            for condition in given.conditions
            for row in mean_gains(made, condition, given.learners, scenarios, over)
        ],
        "paired": [row for ours in given.learners if ours.startswith(BEST) for row in paired(made, ours, peers)],
    }


def charts(results: dict[str, Any]) -> dict[str, str]:
    """Return the plots, file name -> SVG: mean gain per condition, and gain per scenario as recorded."""
    drawn = {}
    for over, condition in dict.fromkeys((row["over"], row["condition"]) for row in results["mean_gains"]):
        means = [row for row in results["mean_gains"] if (row["over"], row["condition"]) == (over, condition)]
        marks = [Mark(r["learner"], r["mean_gain"], r["se"], not is_peer(r["learner"])) for r in means]
        what = f"Mean gain, {over} ({means[0]['scenarios']}), {condition}"
        drawn[f"learning-mean-{_slug(over)}-{condition}.svg"] = gain_chart(what, marks)
    for scenario in dict.fromkeys(row["scenario"] for row in results["results"]):
        of_scenario = [
            r for r in results["results"] if r["scenario"] == scenario and r["learner"] not in ("best fixed", "oracle")
        ]
        marks = [
            Mark(r["learner"], r["gain"], r["gain_se"], not is_peer(r["learner"]))
            for r in sorted(of_scenario, key=lambda r: -r["gain"])
        ]
        if "," not in scenario:
            drawn[f"learning-{_slug(Path(scenario).name if Path(scenario).exists() else scenario)}.svg"] = gain_chart(
                f"Gain, {scenario}", marks
            )
    return drawn


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text)


def _show(results: dict[str, Any]) -> None:
    for row in results["results"]:
        if "us_per_round" in row:
            print(
                f"{row['scenario']:24} {row['learner']:22} u {row['mean_utility']:.4f} +- {row['se']:.4f}  "
                f"gain {row['gain']:+.3f} +- {row['gain_se']:.3f}  last quarter {row['last_quarter']:.4f}  "
                f"{row['us_per_round']:6.0f} us a round"
            )
        else:
            print(f"{row['scenario']:24} {row['learner']:22} u {row['mean_utility']:.4f}")
    for row in results["mean_gains"]:
        print(
            f"mean gain, {row['over']} ({row['scenarios']}), {row['condition']:6} {row['learner']:22} "
            f"{row['mean_gain']:+.4f} +- {row['se']:.4f}"
        )


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _parser() -> argparse.ArgumentParser:
    every = (*OURS, *(f"{name}{SCALAR}" for name in OURS if name == BEST), *PEERS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluation",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = os.environ.get("STEERSMAN_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--scenarios", nargs="+", default=list(DEFAULT_NAMES), metavar="NAME[@PRICE]|FILE",
                        help=f"all by default: {', '.join(DEFAULT_NAMES)}")  # fmt: skip
    parser.add_argument("--learners", nargs="+", default=list(every), metavar="NAME",
                        help=f"all by default: {', '.join(every)}")  # fmt: skip
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS), metavar="CONDITION",
                        help=f"all by default: {', '.join(CONDITIONS)}")  # fmt: skip
    parser.add_argument("--orders", type=_count, default=10, metavar="N", help="shuffled orders, the same for all (10)")
    parser.add_argument("--slow-orders", type=_count, default=10, metavar="N",
                        help=f"orders at most of the slow ones: {', '.join(SLOW)} (10)")  # fmt: skip
    parser.add_argument("--close-orders", type=_count, default=40, metavar="N",
                        help=f"orders, as recorded, of {'; '.join(CLOSE)} (40)")  # fmt: skip
    parser.add_argument("--seeds", type=_count, default=1, metavar="N", help="draws of a learner in each order (1)")
    parser.add_argument("--data", type=Path, default=Path(data), metavar="DIR", help="data files ($STEERSMAN_DATA)")
    parser.add_argument("--jobs", type=_count, default=max(1, (os.cpu_count() or 2) // 2), metavar="N",
                        help="processes (half of the cores)")  # fmt: skip
    parser.add_argument("--kept", action="store_true", help="make no runs: report on those that were made before")
    parser.add_argument(
        "--update", action="store_true", help="keep the rows of the result file that these runs do not replace"
    )
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object")
    parser.add_argument("--dry", action="store_true", help="write no result file and no plots")
    add_out(parser)
    return parser


if __name__ == "__main__":
    sys.exit(alone(main))
