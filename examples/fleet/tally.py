"""What a run of the fleet came to: beside the static baseline and the optimum of the world model, on the same queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from examples.fleet.optimum import Expected, Setting, expected, optimum
from examples.fleet.query import Query
from examples.fleet.world import BASELINE

RECENT = 250


@dataclass(frozen=True, slots=True)
class Interaction:
    """One finished interaction: the query, what was decided (role -> arm), how, and what came of it.

    `quality` is the true one (0..1), `version` the orchestrator's policy version (None for a fallback).
    """

    query: Query
    setting: Setting
    modes: tuple[str, ...]
    version: int | None
    latency_us: int
    cost_micro_usd: int
    quality: float

    @property
    def control(self) -> bool:
        """Whether the interaction belongs to the control group."""
        return "HOLDOUT" in self.modes


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


class Tally:
    """Collects finished interactions in the order in which they ended."""

    def __init__(self) -> None:
        self.interactions: list[Interaction] = []
        self.failures: Counter[str] = Counter()

    def add(self, interaction: Interaction) -> None:
        """Count a finished interaction."""
        self.interactions.append(interaction)

    def failed(self, reason: str) -> None:
        """Count an interaction that could not be finished."""
        self.failures[reason] += 1

    def recent(self) -> dict[str, Any]:
        """Return the means of the last 250 interactions outside the control group."""
        part = [one for one in self.interactions[-RECENT:] if not one.control]
        return {
            "interactions": len(self.interactions),
            "failed": sum(self.failures.values()),
            "version": max((one.version or 0 for one in part), default=0),
            "fallback": _mean([float("FALLBACK" in one.modes) for one in part]),
            **_observed(part),
        }

    def summary(self) -> dict[str, Any]:
        """Return the whole run and its last quarter, each beside baseline and optimum on the same queries.

        Latency is in milliseconds, cost in US dollars per interaction, quality 0 to 1, utility as
        `optimum.utilities` defines it; regret is the optimum's expected utility less that of what was decided.
        """
        treated = [one for one in self.interactions if not one.control]
        return {
            "interactions": len(self.interactions),
            "control": len(self.interactions) - len(treated),
            "failed": dict(self.failures),
            "fallback_share": _mean([float("FALLBACK" in one.modes) for one in treated]),
            "all": compare(treated),
            "last_quarter": compare(treated[len(treated) * 3 // 4 :]),
        }


def _observed(part: Sequence[Interaction]) -> dict[str, float]:
    return {
        "latency_ms": _mean([one.latency_us for one in part]) / 1e3,
        "cost_usd": _mean([one.cost_micro_usd for one in part]) / 1e6,
        "quality": _mean([one.quality for one in part]),
    }


def _expectation(part: Sequence[Expected]) -> dict[str, float]:
    return {
        "latency_ms": _mean([one.latency_us for one in part]) / 1e3,
        "cost_usd": _mean([one.cost_micro_usd for one in part]) / 1e6,
        "quality": _mean([one.quality for one in part]),
        "utility": _mean([one.utility for one in part]),
    }


def compare(part: Sequence[Interaction]) -> dict[str, Any]:
    """Return what `part` came to beside the baseline's and the optimum's expectation on the same queries."""
    chosen = _expectation([expected(one.query, one.setting) for one in part])
    baseline = _expectation([expected(one.query, BASELINE) for one in part])
    best = _expectation([expected(one.query, optimum(one.query)) for one in part])
    observed = _observed(part)
    hard = [one for one in part if one.query.complexity > 2 / 3]
    return {
        **observed,
        "latency_change": observed["latency_ms"] / baseline["latency_ms"] - 1 if part else 0.0,
        "cost_change": observed["cost_usd"] / baseline["cost_usd"] - 1 if part else 0.0,
        "quality_complex": _observed(hard)["quality"],
        "quality_complex_baseline": _expectation([expected(one.query, BASELINE) for one in hard])["quality"],
        "regret": best["utility"] - chosen["utility"],
        "regret_baseline": best["utility"] - baseline["utility"],
        "baseline": baseline,
        "optimum": best,
    }
