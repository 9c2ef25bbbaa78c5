"""`python -m benchmarks.credit`: which credit rule learns best where only whole answers are judged.

The research assistant fleet from a cold start (`benchmarks.fleet_offline`), four policies, and one score an interaction: that
of the whole answer. Two yardsticks let each policy learn from the raw reward of the trace, whatever the others did: its quality, cost and
latency in full, a head for each as always; and their sum, its utility, as one number, as learners see it that know no components.
The rules of `[policy.reward]` run on the same seeds, and beside them two that only a simulation can give: what the peers' decisions
truly did taken out, and the query's true difficulty too (the true difference reward). Measured is the share of the way from
the static baseline to the optimum of the world model, in expected utility of what was decided: of the whole run (so
what learning cost counts) and of its last third.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.credit_rules import RAW, RAW_NUMBER, RULES
from benchmarks.fleet_offline import play
from benchmarks.measure import Figure, add_out, alone, report, say
from examples.fleet.optimum import expected, optimum
from examples.fleet.query import draw_query
from examples.fleet.tally import Interaction
from examples.fleet.world import BASELINE, ROLES
from learners.policies import Policies
from learners.policies_file import load_policies
from learners.spec import PolicySpec, Scales, Weights

POLICIES: Final = Path(__file__).resolve().parents[1] / "policies.toml"
SEEDS: Final = tuple(range(401, 425))
"""Not those that anything was chosen on (1 to 8)."""
REQUESTS: Final = 2000
SCALES: Final[tuple[float | None, ...]] = (None,)
YARDSTICKS: Final = {RAW: "raw", RAW_NUMBER: "raw in one number"}
_NAMES: Final = tuple(f"research/{role}" for role in ROLES)
# One unit of utility is one of the answer's quality, everywhere.
_SCALES: Final = Scales(cost_micro_usd=2_000_000.0, latency_us=80_000_000.0)
_WEIGHTS: Final = Weights(quality=1.0, cost=1.0, latency=1.0)
PAYLOAD = (
    f"{REQUESTS:,} requests of examples/fleet from a cold start, 40 a second of simulated time, policies published every 500 ms, one "
    "judgement of the whole answer, no scores of steps; 10 % control group left out; exploration at the platform's default (`learners.exploring`: it "
    f"narrows) unless a scale is named; seeds {SEEDS[0]} to {SEEDS[-1]}, the same for all rules"
)


def policies_of(rule: str, scale: float | None = None) -> Policies:
    """The fleet's policies with the trace's quality as their only feedback, under a rule of `RULES`."""
    loaded = load_policies(POLICIES)
    return Policies.of(*(_under(spec, rule, scale) for spec in loaded if spec.name in _NAMES))


def _under(spec: PolicySpec, rule: str, scale: float | None) -> PolicySpec:
    changes: dict[str, Any] = {"metric": "quality", "scales": _SCALES, "weights": _WEIGHTS, **RULES[rule].changes}
    if changes.get("quality_credit") == "difference":
        changes["peers"] = tuple(name for name in _NAMES if name != spec.name)
    return replace(
        spec,
        reward=spec.reward.model_copy(update=changes),
        exploration=spec.exploration.model_copy(update={"scale": scale}),
    )


class Yardstick:
    """Expected utility of baseline and optimum, worked out once a query."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[float, float]] = {}

    def share(self, seed: int, part: Iterable[Interaction]) -> float:
        """Share of the way from baseline to optimum that the decisions of a seed came to, the control group left out."""
        gained = possible = 0.0
        for one in part:
            if not one.control:
                baseline, best = self._of(seed, one.query.index)
                gained += expected(one.query, one.setting).utility - baseline
                possible += best - baseline
        return gained / possible

    def _of(self, seed: int, index: int) -> tuple[float, float]:
        if (seed, index) not in self._known:
            query = draw_query(seed, index)
            self._known[seed, index] = (
                expected(query, BASELINE).utility,
                expected(query, optimum(query)).utility,
            )
        return self._known[seed, index]


def shares_of(rule: str, scale: float | None, seed: int, requests: int) -> tuple[float, float]:
    """Play a seed under a rule; shares of the optimum over the whole run and its last third."""
    done = play(
        policies_of(rule, scale), seed, requests, steps_judged=False, publish_interval_us=500_000, rewrite=RULES[rule].rewrite
    )  # fmt: skip
    yardstick = Yardstick()
    return yardstick.share(seed, done), yardstick.share(seed, done[-requests // 3 :])


def figures(
    seeds: Sequence[int] = SEEDS, requests: int = REQUESTS, scales: Sequence[float | None] = SCALES
) -> Iterator[Figure]:
    """Share of the optimum under each rule: over the seeds, and what it is more than on the raw reward, in pairs."""
    jobs = [(rule, scale, seed, requests) for scale in scales for seed in seeds for rule in RULES]
    found: dict[tuple[float | None, str], list[tuple[float, float]]] = {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for (rule, scale, seed, _), (whole, last) in zip(
            jobs, pool.map(shares_of, *zip(*jobs, strict=True)), strict=True
        ):
            found.setdefault((scale, rule), []).append((whole, last))
            say(f"credit: seed {seed}, {_named(scale)}, {rule}: {whole:.3f} of the optimum, last third {last:.3f}")
    for (scale, rule), values in found.items():
        label = f"{rule}; {_named(scale)}"
        for at, part in enumerate(("whole run", "last third")):
            shares = [pair[at] for pair in values]
            yield Figure(label, f"share of optimum, {part}", "share", *_summary(shares), len(shares))
            for yardstick, name in YARDSTICKS.items():
                if rule not in (yardstick, RAW):
                    pairs = zip(values, found[scale, yardstick], strict=True)
                    more = [pair[at] - raw[at] for pair, raw in pairs]
                    yield Figure(label, f"more than {name}, {part}: mean, -+ 2 se", "share", *interval(more), len(more))


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean of paired differences, less and plus two standard errors."""
    mean = statistics.mean(differences)
    margin = 2 * statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    return round(mean, 4), round(mean - margin, 4), round(mean + margin, 4)


def _summary(shares: Sequence[float]) -> tuple[float, float, float]:
    return round(statistics.median(shares), 4), round(min(shares), 4), round(max(shares), 4)


def _named(scale: float | None) -> str:
    return "default exploration" if scale is None else f"scale {scale:g}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write `credit.json`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.credit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python -m benchmarks.credit --seeds 201 202 --requests 1000 --out /tmp/bench",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, metavar="N", help="at least two")
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"of one run (default {REQUESTS})")
    parser.add_argument("--scales", type=float, nargs="*", help="of the exploration (default: the platform's)")
    add_out(parser)
    options = parser.parse_args(argv)
    if len(options.seeds) < 2:
        parser.error("argument --seeds: at least two")
    report("credit", PAYLOAD, figures(options.seeds, options.requests, options.scales or SCALES), folder=options.out)


if __name__ == "__main__":
    raise SystemExit(alone(main))
