"""What a few evaluated prompts are worth before the first decision: `[policy.prior]` against a cold start. `python -m benchmarks warm_start`.

``STEERSMAN_DATA`` names a folder with routing data (`benchmarks.evaluation.sets`); what is not there is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluation.ours import Ours
from benchmarks.evaluation.play import Played, judge, play
from benchmarks.evaluation.scenario import Scenario
from benchmarks.evaluation.sets import file_of, scenario
from benchmarks.measure import Figure, say
from learners.prior_spec import PriorSpec
from steersman.arms import level_text

PROMPTS = 50
ORDERS = {"pareto_k4": range(40), "pareto_k3": range(40), "routellm": range(8), "routellm@0.02": range(8)}
_FIRST = 300
"""Orders on which nothing was chosen."""

PAYLOAD = (
    f"routing data in random orders, 40 of the ParetoBandit sets and 8 of RouteLLM; all models' outcomes on the first {PROMPTS} prompts are known, their means "
    f"declared in [policy.prior] with events = {PROMPTS}; the rest is played, only the chosen model's outcome being shown; gain on the rest = (utility - best fixed "
    "model's) / (oracle's - best fixed model's); default settings"
)


def figures() -> Iterator[Figure]:
    """Measure."""
    folder = Path(os.environ.get("STEERSMAN_DATA", "."))
    for name, orders in ORDERS.items():
        source = file_of(name, folder)
        if source is not None:
            yield from _of_set(name, scenario(name, source), [_FIRST + order for order in orders])


def _of_set(name: str, everything: Scenario, orders: list[int]) -> Iterator[Figure]:
    cold, told, fixed = [], [], []
    for order in orders:
        evaluated, rest = split(everything.in_order(order))
        cold.append(_gain(play(Ours(rest.spec, "linear", order), rest)))
        spec = replace(rest.spec, prior=declared(evaluated))
        told.append(_gain(play(Ours(spec, "linear", order), rest)))
        best = int(evaluated.utility.mean(axis=0).argmax())
        fixed.append(_gain(judge(rest, np.full(len(rest.x), best))))
        say(f"warm start: {name}, order {order}: {cold[-1]:+.3f} cold, {told[-1]:+.3f} told, {fixed[-1]:+.3f} fixed")
    more = [one - other for one, other in zip(told, cold, strict=True)]
    yield _figure(name, "gain from a cold start", cold)
    yield _figure(name, f"gain with the means of {PROMPTS} prompts declared", told)
    yield _figure(name, "more by that, in pairs", more)
    yield _figure(name, f"gain of always taking the model that is best on the {PROMPTS}", fixed)


def split(played: Scenario) -> tuple[Scenario, Scenario]:
    """The prompts that are evaluated beforehand, and the rest."""
    return played.rows(np.arange(PROMPTS)), played.rows(np.arange(PROMPTS, len(played.x)))


def declared(evaluated: Scenario) -> PriorSpec:
    """What an operator writes after an evaluation: the models' means."""
    [(knob, levels)] = evaluated.spec.arms.knobs.items()

    def means(table: NDArray[np.float64]) -> dict[str, dict[str, float]]:
        return {knob: {level_text(one): float(mean) for one, mean in zip(levels, table.mean(axis=0), strict=True)}}

    return PriorSpec(
        events=float(len(evaluated.x)), quality=means(evaluated.quality), cost_micro_usd=means(evaluated.cost)
    )


def _gain(played: Played) -> float:
    return (played.mean_utility - played.best_fixed) / (played.oracle - played.best_fixed)


def _figure(name: str, what: str, gains: list[float]) -> Figure:
    mean, error = float(np.mean(gains)), float(np.std(gains, ddof=1) / len(gains) ** 0.5)
    mean, low, high = (round(value, 4) for value in (mean, mean - 2 * error, mean + 2 * error))
    return Figure(name, f"{what}: mean, -+ 2 se", "share", mean, low, high, len(gains))
