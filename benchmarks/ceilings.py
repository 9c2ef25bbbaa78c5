"""Ceilings on tool calls and of single tenants, kept as those on cost are (`benchmarks.adaptation`). `python -m benchmarks ceilings`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from benchmarks.adaptation import best_mix
from benchmarks.measure import Figure, say, spread
from benchmarks.worlds import Float, Run, fleet, joint_fleet
from learners.policy_learner import PolicyLearner
from learners.spec import Ceilings, PolicySpec, Weights

PAYLOAD = (
    "replays in which only the chosen arm's outcome is revealed, snapshots every 10 decisions and rewards 10 late, quality alone in the "
    "utility. Tool calls: joint fleet, 162 arms, a call for each subagent and pass, one in ten left out. Tenants: fleet, 27 arms, whose tiers "
    "are the tenants (standard seven in ten): a ceiling for either, or one for standard beside the policy's. Deviations are of any 1,000 decisions of whom the ceiling "
    "is on, after 600 of them"
)
SEEDS = range(2)
_WARM, _WINDOW = 600, 1000
_CALLS = 3.0
_TENANTS = {"standard": 5000.0, "enterprise": 12_000.0}
_POLICY, _BESIDE = 7000.0, {"standard": 5000.0}
_REQUESTS = 8000


class Kept(NamedTuple):
    """How a ceiling was kept after the warm-up, and what quality there was for it.

    Attributes
    ----------
    mean : float
        Mean use of the ceiling.
    worst : float
        Largest deviation of a window's mean from it, in either direction.
    over : float
        Largest excess of a window's mean over it; 0 when there was none.
    inside : float
        Share of the windows within 1 %.
    gain : float
        Quality above that of the best fixed mix of arms that uses as much.
    """

    mean: float
    worst: float
    over: float
    inside: float
    gain: float


def kept(run: Run, table: Float, ceiling: float, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Kept:
    """See `Kept`, of the decisions `rows`, of which every arm uses what is in `table` (n, K)."""
    arms, rows = np.array(run.arms)[rows][_WARM:], rows[_WARM:]
    used = table[rows, arms] / ceiling
    sums = np.concatenate([[0.0], np.cumsum(used)])
    windows = (sums[_WINDOW:] - sums[:-_WINDOW]) / _WINDOW - 1.0
    quality = run.world.quality
    mixed = best_mix(table[rows].mean(axis=0), quality[rows].mean(axis=0), float(used.mean()) * ceiling)
    return Kept(
        float(used.mean()),
        float(np.abs(windows).max()),
        float(max(windows.max(), 0.0)),
        float((np.abs(windows) <= 0.01).mean()),
        float(quality[rows, arms].mean()) - mixed,
    )


def figures() -> Iterator[Figure]:
    """All of it, about five minutes."""
    found: dict[str, list[Kept]] = {}
    for seed in SEEDS:
        say(f"tool calls, seed {seed}")
        run, calls = tool_calls(seed, 2500)
        every = np.arange(2500)
        found.setdefault(f"joint fleet, ceiling of {_CALLS:g} tool calls", []).append(kept(run, calls, _CALLS, every))
        say(f"tenants, seed {seed}")
        run, whose = tenants(seed, _REQUESTS, _TENANTS)
        for tenant, ceiling in _TENANTS.items():
            name = f"fleet, {tenant}'s own ceiling of {ceiling:g} micro-USD"
            found.setdefault(name, []).append(kept(run, run.world.cost, ceiling, np.flatnonzero(whose == tenant)))
        say(f"a tenant beside the policy, seed {seed}")
        run, whose = tenants(seed, _REQUESTS, _BESIDE, _POLICY)
        name = f"fleet, the policy's ceiling of {_POLICY:g} micro-USD beside standard's of {_BESIDE['standard']:g}"
        found.setdefault(name, []).append(kept(run, run.world.cost, _POLICY, np.arange(_REQUESTS)))
        name = f"fleet, standard's ceiling of {_BESIDE['standard']:g} micro-USD beside the policy's of {_POLICY:g}"
        rows = np.flatnonzero(whose == "standard")
        found.setdefault(name, []).append(kept(run, run.world.cost, _BESIDE["standard"], rows))
    for name, some in found.items():
        for metric, unit, values in (
            ("mean use of the ceiling", "share", [one.mean for one in some]),
            ("largest deviation of any 1,000 decisions", "share", [one.worst for one in some]),
            ("largest excess of any 1,000 decisions", "share", [one.over for one in some]),
            ("of all 1,000 decisions, within 1 %", "share", [one.inside for one in some]),
            ("quality above the best fixed mix of the same use", "quality", [one.gain for one in some]),
        ):
            yield Figure(name, metric, unit, *spread(values), len(values))


def tool_calls(seed: int, n: int) -> tuple[Run, Float]:
    """The joint fleet under a ceiling on tool calls, and the calls of every arm (n, 162)."""
    world = joint_fleet(seed, n)
    most = [int(arm["subagents"]) * int(arm["passes"]) for arm in world.spec.arms.arms]
    calls = np.random.default_rng((seed, 8)).binomial(most, 0.9, (n, len(most))).astype(np.float64)
    spec = _limited(world.spec, ceilings=Ceilings(tool_calls=_CALLS))
    return Run(replace(world, calls=calls), PolicyLearner(spec), 10, 10, seed).go(n), calls


def tenants(
    seed: int, n: int, ceilings: Mapping[str, float], policy: float | None = None
) -> tuple[Run, np.ndarray[tuple[int], np.dtype[np.str_]]]:
    """The fleet's writer under ceilings of its tenants and, maybe, of its own, and whose each request is."""
    world = fleet(seed, n)
    spec = _limited(
        world.spec,
        ceilings=Ceilings(cost_micro_usd=policy),
        tenant_feature="tier",
        tenant_ceilings={tenant: Ceilings(cost_micro_usd=ceiling) for tenant, ceiling in ceilings.items()},
    )
    at = spec.features.column("tier")
    names = np.array(["standard", "enterprise"])
    return Run(world, PolicyLearner(spec), 10, 10, seed).go(n), names[world.x[:, at : at + 2].argmax(axis=1)]


def _limited(spec: PolicySpec, **changes: object) -> PolicySpec:
    reward = spec.reward.model_copy(update={"weights": Weights(), **changes})
    return replace(spec, reward=reward, exploration=spec.exploration.model_copy(update={"floor": 0.005}))
