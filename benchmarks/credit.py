"""`python -m benchmarks.credit`: which credit rule learns best where only whole answers are judged.

The research assistant fleet from a cold start (`benchmarks.fleet_offline`), four policies, and one score an interaction: that
of the whole answer. The yardstick is each policy learning from the raw reward of the trace (its quality, cost and latency in
full, whatever the others did); the rules of `[policy.reward]` run on the same seeds. Measured is the share of the way from
the static baseline to the optimum of the world model, in expected utility of what was decided: of the whole run (so
what learning cost counts) and of its last third.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

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
SEEDS: Final = tuple(range(201, 207))
"""Not those that anything was chosen on (1 to 3)."""
REQUESTS: Final = 2000
SCALES: Final[tuple[float | None, ...]] = (None,)
RAW: Final = "raw trace reward"
_NAMES: Final = tuple(f"research/{role}" for role in ROLES)
# One unit of utility is one of the answer's quality, everywhere.
_SCALES: Final = Scales(cost_micro_usd=2_000_000.0, latency_us=80_000_000.0)
_WEIGHTS: Final = Weights(quality=1.0, cost=1.0, latency=1.0)
RULES: Final[Mapping[str, Mapping[str, Any]]] = {
    RAW: {"credit": "trace"},
    "own": {"credit": "subtree"},
    "shared, evenly": {
        "credit": "subtree",
        "quality_credit": "shared",
        "weights": Weights(quality=4, cost=1, latency=1),
    },
    "difference, own cost": {"credit": "subtree", "quality_credit": "difference"},
    "difference, trace's cost": {"credit": "trace", "quality_credit": "difference"},
}
"""What each rule changes in the reward specs of all four policies."""
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
    changes: dict[str, Any] = {"metric": "quality", "scales": _SCALES, "weights": _WEIGHTS, **RULES[rule]}
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


def figures(
    seeds: Sequence[int] = SEEDS, requests: int = REQUESTS, scales: Sequence[float | None] = SCALES
) -> Iterator[Figure]:
    """Share of the optimum under each rule: over the seeds, and what it is more than on the raw reward, in pairs."""
    yardstick = Yardstick()
    for scale in scales:
        found: dict[str, list[tuple[float, float]]] = {rule: [] for rule in RULES}
        for seed in seeds:
            for rule in RULES:
                done = play(policies_of(rule, scale), seed, requests, steps_judged=False, publish_interval_us=500_000)
                whole, last = yardstick.share(seed, done), yardstick.share(seed, done[-requests // 3 :])
                found[rule].append((whole, last))
                say(f"credit: seed {seed}, {_named(scale)}, {rule}: {whole:.3f} of the optimum, last third {last:.3f}")
        for rule, values in found.items():
            for at, part in enumerate(("whole run", "last third")):
                shares = [pair[at] for pair in values]
                label = f"{rule}; {_named(scale)}"
                yield Figure(label, f"share of optimum, {part}", "share", *_summary(shares), len(shares))
                if rule != RAW:
                    more = [pair[at] - raw[at] for pair, raw in zip(values, found[RAW], strict=True)]
                    yield Figure(label, f"more than raw, {part}: mean, -+ 2 se", "share", *interval(more), len(more))


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
