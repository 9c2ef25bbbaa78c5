"""The credit rules that `benchmarks.credit` compares: those of `[policy.reward]`, the yardsticks, and two that only a simulation can give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.fleet_offline import Rewrite
from examples.fleet.optimum import Expected, expected
from examples.fleet.tally import Interaction
from examples.fleet.world import BASELINE, COST_SCALE_MICRO_USD, LATENCY_SCALE_US
from learners.spec import Weights

RAW: Final = "raw trace reward"
RAW_NUMBER: Final = "raw trace reward, one number"
OWN_COST, TRACE_COST = "difference, own cost", "difference, trace's cost"


@dataclass(frozen=True)
class Rule:
    """What a rule changes.

    Attributes
    ----------
    changes
        In the reward specs of all four policies.
    rewrites
        Done to each reward record before it is learned, one after the other.
    """

    changes: Mapping[str, Any]
    rewrites: Sequence[Rewrite] = field(default=())

    def rewrite(self, reward: dict[str, Any], one: Interaction) -> None:
        """Do all of `rewrites`."""
        for rewrite in self.rewrites:
            rewrite(reward, one)


def one_number(reward: dict[str, Any], _one: Interaction) -> None:
    """Make a reward its utility alone, as learners see it that know no components."""
    if reward["quality"] is not None:
        cost, latency = reward["cost_micro_usd"] / COST_SCALE_MICRO_USD, reward["latency_us"] / LATENCY_SCALE_US
        reward["quality"] -= cost + latency
    reward["cost_micro_usd"] = reward["latency_us"] = 0


def true_difference(reward: dict[str, Any], one: Interaction) -> None:
    """Subtract what was to be expected had this decision been its baseline: the query's true difficulty and the peers' true effects."""
    _subtract(reward, expected(one.query, _without(reward, one)))


def without_peers(reward: dict[str, Any], one: Interaction) -> None:
    """Subtract the true effects of the peers' decisions, against their baselines; the query's difficulty stays."""
    _subtract(reward, expected(one.query, _without(reward, one)))
    _subtract(reward, expected(one.query, BASELINE), sign=-1)


def _without(reward: Mapping[str, Any], one: Interaction) -> Mapping[str, Any]:
    role = reward["policy"].removeprefix("research/")
    return {**one.setting, role: BASELINE[role]}


def _subtract(reward: dict[str, Any], what: Expected, sign: int = 1) -> None:
    reward["quality"] -= sign * what.quality
    reward["cost_micro_usd"] -= sign * round(what.cost_micro_usd)
    reward["latency_us"] -= sign * round(what.latency_us)


_DIFFERENCE: Final = {"credit": "trace", "quality_credit": "difference"}
_NUMBER: Final = {"weights": Weights(quality=1.0)}
RULES: Final[Mapping[str, Rule]] = {
    RAW: Rule({"credit": "trace"}),
    RAW_NUMBER: Rule({"credit": "trace", **_NUMBER}, (one_number,)),
    "own": Rule({"credit": "subtree"}),
    "shared, evenly": Rule(
        {
            "credit": "subtree",
            "quality_credit": "shared",
            "weights": Weights(quality=4, cost=1, latency=1),
        }
    ),
    OWN_COST: Rule({"credit": "subtree", "quality_credit": "difference"}),
    TRACE_COST: Rule(_DIFFERENCE),
    "difference, one number": Rule({**_DIFFERENCE, **_NUMBER}, (one_number,)),
    "oracle: the peers' true effects": Rule({"credit": "trace"}, (without_peers,)),
    "oracle: the true difference": Rule({"credit": "trace"}, (true_difference,)),
}
"""By name."""
