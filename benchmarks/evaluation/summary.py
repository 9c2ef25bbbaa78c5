"""Means, errors and paired differences of what was played."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from typing import Any

from benchmarks.evaluation.play import Played
from benchmarks.evaluation.runs import Run

Results = Mapping[Run, Played]


def title(scenario: str, condition: str) -> str:
    """Name of a scenario under a condition: ``pareto_k4``, ``pareto_k4, drift``."""
    return scenario if condition == "plain" else f"{scenario}, {condition}"


def rows(results: Results) -> list[dict[str, Any]]:
    """One row per scenario, condition and learner, with best fixed arm and oracle among the learners.

    Returns
    -------
    list of dict
        ``scenario, learner, mean_utility, se, gain, gain_se, last_quarter, quality, cost, us_per_round, worst_two, runs``.
        se is the standard error over runs, cost in US dollars; gain = (u - best fixed) / (oracle - best fixed).
    """
    made = []
    for (scenario, condition), of_scenario in _grouped(results, lambda r: (r.scenario, r.condition)).items():
        by_learner = _grouped(of_scenario, lambda r: r.learner)
        some = list(next(iter(by_learner.values())).values())
        for name, fixed in (("best fixed", "best_fixed"), ("oracle", "oracle")):
            level = statistics.fmean(getattr(p, fixed) for p in some)
            made.append(
                {
                    "scenario": title(scenario, condition),
                    "learner": name,
                    "mean_utility": round(level, 5),
                    "se": 0.0,
                    "gain": 0.0 if name == "best fixed" else 1.0,
                    "gain_se": 0.0,
                    "runs": len(some),
                }
            )
        made += [
            {"scenario": title(scenario, condition), "learner": name, **_row(list(played.values()))}
            for name, played in by_learner.items()
        ]
    return made


def gain(played: Played) -> float:
    """(u - best fixed) / (oracle - best fixed); 0 where the oracle is no better than the best fixed arm."""
    span = played.oracle - played.best_fixed
    return (played.mean_utility - played.best_fixed) / span if span > 0 else 0.0


def _row(played: Sequence[Played]) -> dict[str, Any]:
    utility, gains = [p.mean_utility for p in played], [gain(p) for p in played]
    return {
        "mean_utility": round(statistics.fmean(utility), 5),
        "se": round(standard_error(utility), 5),
        "gain": round(statistics.fmean(gains), 4),
        "gain_se": round(standard_error(gains), 4),
        "last_quarter": round(statistics.fmean(p.last_quarter for p in played), 5),
        "quality": round(statistics.fmean(p.quality for p in played), 5),
        "cost": round(statistics.fmean(p.cost_usd for p in played), 8),
        "us_per_round": round(statistics.median(p.us_per_round for p in played), 1),
        "worst_two": round(statistics.fmean(p.worst_two for p in played), 4),
        "runs": len(played),
    }


def standard_error(values: Sequence[float]) -> float:
    """Of a mean; 0 for a single value, of which nothing is known."""
    return statistics.stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0


def mean_gains(
    results: Results, condition: str, learners: Iterable[str], scenarios: Iterable[str], over: str
) -> list[dict[str, Any]]:
    """Mean gain over those of the scenarios that were played under a condition, of the learners that played all of them, best first.

    `over` names the scenarios. The standard error is that of the mean over scenarios taken as given: their own errors,
    added as of independent runs.
    """
    by_learner = {name: _gains(results, condition, name) for name in learners}
    shared = sorted(set(scenarios) & {name for gains in by_learner.values() for name in gains})
    by_learner = {name: gains for name, gains in by_learner.items() if gains.keys() >= set(shared)}
    if not shared:
        return []
    made = [
        {
            "over": over,
            "condition": condition,
            "learner": name,
            "mean_gain": round(statistics.fmean(statistics.fmean(gains[s].values()) for s in shared), 4),
            "se": round(sqrt(sum(standard_error(list(gains[s].values())) ** 2 for s in shared)) / len(shared), 4),
            "scenarios": len(shared),
        }
        for name, gains in by_learner.items()
    ]
    return sorted(made, key=lambda row: -row["mean_gain"])


def paired(results: Results, ours: str, peers: Iterable[str]) -> list[dict[str, Any]]:
    """Our learner less each peer on the very same orders: ``difference`` in gain, its standard error, the number of pairs."""
    made = []
    for scenario, condition in dict.fromkeys((r.scenario, r.condition) for r in results):
        own = _gains(results, condition, ours).get(scenario, {})
        for peer in peers:
            theirs = _gains(results, condition, peer).get(scenario, {})
            both = [own[k] - theirs[k] for k in own if k in theirs]
            if both:
                made.append(
                    {
                        "scenario": title(scenario, condition),
                        "learner": ours,
                        "peer": peer,
                        "difference": round(statistics.fmean(both), 4),
                        "se": round(standard_error(both), 4),
                        "pairs": len(both),
                    }
                )
    return made


def _gains(results: Results, condition: str, learner: str) -> dict[str, dict[tuple[int, int], float]]:
    """Scenario -> (order, seed) -> gain."""
    made: dict[str, dict[tuple[int, int], float]] = {}
    for run, played in results.items():
        if run.condition == condition and run.learner == learner:
            made.setdefault(run.scenario, {})[run.order, run.seed] = gain(played)
    return made


def _grouped(results: Results, key: Any) -> dict[Any, dict[Run, Played]]:
    made: dict[Any, dict[Run, Played]] = {}
    for run, played in results.items():
        made.setdefault(key(run), {})[run] = played
    return made
