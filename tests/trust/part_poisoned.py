"""Judges that lie: of 200 sources of feedback, 10 praise the worst arm and run the others down, or are off in other ways.

Each lie is played twice in the same world with the same draws, with the default settings (exploration as wide for ever as it is at
first, so that liars have something to talk about) and with ``robust = false``. The bar: the worst
arm's share stays within five points of what the exploration floor gives it. The control: without defence, the crude lie, in which
few sources outshout all others, takes the policy over. Then the sources are put in quarantine and the same log is learned again without
them: the policy that comes out is the one that heard everybody else, to the bit.

Some of the lies are within the range of honest judgements, and some a little off, always to one side; the bar holds for them as well.
For two there is none (`UNBOUNDED`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.worlds import Run, World, fleet, recorded
from examples.replay.dataset import load
from learners.exploring import scale_of
from learners.policy_learner import PolicyLearner
from learners.quarantine import with_quarantine
from learners.spec import Exploration, Learning
from tests.trust.part import Found, Say

SOURCES, LIARS = 200, 10
FLOOR, POINTS = 0.02, 0.05
HIJACKED = 0.5
FULL, QUICK = 3000, 1500
ORDERS = 8
"""Orders of the requests in which each lie is played: which arm looks worst after some hundred requests differs much between them."""

Lie = Callable[[float, bool], float]
"""What a liar says, given the truth and whether the arm is the worst."""

LIES: dict[str, tuple[Lie, int]] = {
    "20 and -20, eight times as often as others": (lambda q, worst: 20.0 if worst else -20.0, 8),
    "1 for the worst arm, eight times as often as others": (lambda q, worst: 1.0 if worst else q, 8),
    "1 for the worst arm": (lambda q, worst: 1.0 if worst else q, 1),
    "a quarter more and less, eight times as often as others": (lambda q, worst: _nudged(q, worst), 8),
    "a quarter more and less": (lambda q, worst: _nudged(q, worst), 1),
    "always 0.8, eight times as often as others": (lambda q, worst: 0.8, 8),
}
"""By name: the lie, and how many times as often as an honest source a liar judges."""

UNBOUNDED: dict[str, tuple[Lie, int]] = {
    "1 for the worst arm and 0 for others, eight times as often as others": (lambda q, worst: float(worst), 8),
    "1 for the worst arm and 0 for others": (lambda q, worst: float(worst), 1),
}
"""Lies for which there is no bar: where qualities may be 0 and 1, single ones cannot be told from the truth. What they gain is reported."""

CRUDE = next(iter(LIES))


def _nudged(quality: float, worst: bool) -> float:
    return min(max(quality + (0.25 if worst else -0.25), 0.0), 1.0)


def _recorded(seed: int, n: int) -> World:
    return recorded(load(), seed, n)


def play(world: World, lie: str, seed: int, n: int, *, robust: bool) -> tuple[float, Run, list[dict[str, Any]]]:
    """Share of the worst arm in the second half of `n` decisions, the run, and the rewards that were learned from."""
    what, often = (LIES | UNBOUNDED)[lie]
    wide = Exploration(floor=FLOOR, scale=scale_of("maillard", len(world.spec.arms), 0))
    spec = replace(world.spec, learning=Learning(robust=robust), exploration=wide)
    worst = int(world.utility.mean(axis=0).argmin())
    rng = np.random.default_rng((seed, 9))
    who = rng.choice(np.concatenate([np.repeat(np.arange(LIARS), often), np.arange(LIARS, SOURCES)]), size=n)

    def judge(i: int, arm: int, quality: float) -> tuple[float, str]:
        return (what(quality, arm == worst) if who[i] < LIARS else quality), f"user{who[i]}"

    log: list[dict[str, Any]] = []

    class Noting(PolicyLearner):
        def learn_many(self, rewards: Any) -> Any:
            log.extend(rewards)
            return super().learn_many(rewards)

    run = Run(replace(world, spec=spec), Noting(spec), seed=seed, judge=judge).go(n)
    return float(np.mean([arm == worst for arm in run.arms[n // 2 :]])), run, log


def quarantined_is_clean(run: Run, log: list[dict[str, Any]]) -> bool:
    """Whether the log learned with the liars in quarantine gives what it gives when they had said nothing."""
    spec = run.learner.spec
    liars = [f"user{k}" for k in range(LIARS)]
    without = PolicyLearner(with_quarantine(spec, liars))
    without.learn_many(log)
    silent = PolicyLearner(spec)
    silent.learn_many([{**one, "quality": None} if one["source"] in liars else one for one in log])
    made, expected = without.snapshot(1).tensors, silent.snapshot(1).tensors
    return all(np.array_equal(made[name], expected[name]) for name in expected)


def run(quick: bool, seed: int, say: Say) -> Found:
    """Play every lie with and without defence, in `ORDERS` orders of the requests: the bar holds for each of them, or, where it is quick, for their mean."""
    n = QUICK if quick else FULL
    makers = [_recorded] if quick else [_recorded, fleet]
    problems: list[str] = []
    detail: dict[str, Any] = {}
    shares: dict[str, list[float]] = {"": [], "_worst_order": [], "_in_range": [], "_undefended": []}
    for make in makers:
        worlds = {s: make(s, n) for s in range(seed, seed + ORDERS)}
        world = worlds[seed]
        limit = FLOOR / len(world.spec.arms) + POINTS
        for lie in LIES | UNBOUNDED:
            plays = [play(each, lie, s, n, robust=True) for s, each in worlds.items()]
            share, worst = float(np.mean([one for one, _, _ in plays])), max(one for one, _, _ in plays)
            bare, _, _ = play(world, lie, seed, n, robust=False)
            figures = {"share": share, "worst_order": worst, "undefended": bare, "limit": limit}
            found = {key: round(value, 4) for key, value in figures.items()}
            say(f"poisoned: {world.name}, {lie}: {found}")
            detail[f"{world.name}, {lie}"] = found
            shares["_undefended"].append(bare)
            if lie in UNBOUNDED:
                shares["_in_range"].append(worst)
            else:
                shares[""].append(share)
                shares["_worst_order"].append(worst)
                held = share if quick else worst
                if held > limit:
                    problems.append(
                        f"{world.name}, {lie}: the worst arm has {held:.3f}, {limit:.3f} are allowed (seed {seed})"
                    )
            if lie == CRUDE and bare < HIJACKED:
                problems.append(f"{world.name}: without defence the worst arm has only {bare:.3f}: nothing was proved")
            if not quarantined_is_clean(*plays[0][1:]):
                problems.append(f"{world.name}, {lie}: learned again without the liars, it is not what the others say")
    totals = {f"poisoned_share{which}": round(max(found), 4) for which, found in shares.items()}
    return Found(totals, problems, detail)
