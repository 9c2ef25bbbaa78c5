"""A model is added to a running policy: a better one is to be adopted soon, a worse one to cost little. `python -m benchmarks new_levels`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks.adaptation import WORLDS, MakeWorld
from benchmarks.measure import Figure, say, spread
from benchmarks.worlds import Run, World
from learners.policy_learner import PolicyLearner
from steersman.arms import ArmSpace

SEEDS = range(10)
ADDED, END = 1000, 2000
KNOB = "model"
PAYLOAD = (
    "replays in which only the chosen arm's outcome is revealed, snapshots every 10 decisions, default settings, 10 seeds; the model of the "
    "best fixed arm (of the worst one) is missing for 1,000 decisions and then added to policies.toml; adopted: its share of 50 decisions is "
    "80 % of what it is in decisions 1,500-2,000 of a policy that has had it from the start. fleet: the simulated writer, 27 arms; "
    "paretobandit: 3,609 prompts, 3 models"
)


def figures() -> Iterator[Figure]:
    """Measure."""
    for make in WORLDS:
        yield from _better(make)
        yield from _worse(make)


def _better(make: MakeWorld) -> Iterator[Figure]:
    adopted, right, of_best, of_known = [], [], [], []
    for seed in SEEDS:
        world = make(seed, END)
        best = int(world.utility.mean(axis=0).argmax())
        after, new = added(world, best, seed)
        always = Run(world, PolicyLearner(world.spec), seed=seed).go(END)
        aim = 0.8 * float(new[always.arms[1500:]].mean())
        adopted.append(first_reached(new[after.arms[ADDED:]], aim))
        suited = 0.8 * float(new[world.utility[ADDED:].argmax(axis=1)].mean())
        right.append(first_reached(new[after.arms[ADDED:]], suited))
        got = float(after.of(world.utility, ADDED + 200, END).mean())
        of_best.append(got / float(world.utility[ADDED + 200 :].mean(axis=0).max()))
        of_known.append(got / float(always.of(world.utility, ADDED + 200, END).mean()))
        say(f"new levels: {world.name}, seed {seed}: adopted after {adopted[-1]:.0f} decisions")
    name = f"{world.name}, a better model is added"
    yield _figure(name, "decisions until it is adopted", "decisions", adopted)
    yield _figure(name, "seeds in which that is within 200 decisions", "share", [_within(adopted)])
    if world.name == "fleet":  # recorded outcomes are single draws: what was best then need not be best
        what = "its share is 80 % of that of the requests for which it is best"
        yield _figure(name, f"decisions until {what}", "decisions", right)
        yield _figure(name, f"seeds in which {what} within 200 decisions", "share", [_within(right)])
    yield _figure(name, "utility from decision 200 on, of the best fixed arm's", "share", of_best)
    yield _figure(
        name, "utility from decision 200 on, of that of a policy that has had it from the start", "share", of_known
    )


def _worse(make: MakeWorld) -> Iterator[Figure]:
    share, utility = [], []
    for seed in SEEDS:
        world = make(seed, END)
        worst = int(world.utility.mean(axis=0).argmin())
        after, new = added(world, worst, seed)
        share.append(float(new[after.arms[ADDED : ADDED + 300]].mean()))
        best = world.utility[ADDED : ADDED + 300].mean(axis=0).max()
        utility.append(float(after.of(world.utility, ADDED, ADDED + 300).mean() / best))
    name = f"{world.name}, a worse model is added"
    yield _figure(name, "its share of the next 300 decisions", "share", share)
    yield _figure(name, "utility of the next 300 decisions, of the best fixed arm's", "share", utility)


def added(world: World, arm: int, seed: int) -> tuple[Run, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """A policy that lacks an arm's model at first and then gets it, and which arms have that model, bool (K,)."""
    arms = world.spec.arms
    level = arms.arms[arm][KNOB]
    fewer = ArmSpace(
        {name: tuple(v for v in values if name != KNOB or v != level) for name, values in arms.knobs.items()}
    )
    start = replace(world.spec, arms=fewer, baseline=fewer.labels[0])
    before = world.only([arms.index(label) for label in fewer.labels], start)
    run = Run(before, PolicyLearner(start), seed=seed).go(ADDED)
    learner = PolicyLearner.from_state(world.spec, run.learner.to_state())
    after = Run(world, learner, seed=seed, arms=[0] * ADDED).go(END)
    return after, np.array([one[KNOB] == level for one in arms.arms])


def first_reached(taken: np.ndarray[tuple[int], np.dtype[np.bool_]], aim: float, window: int = 50) -> float:
    """First decision of a window in which the share reaches an aim; as many as there are when none does."""
    found = np.flatnonzero(np.convolve(taken, np.ones(window) / window, "valid") >= aim)
    return float(found[0]) if len(found) else float(len(taken))


def _within(decisions: list[float]) -> float:
    return float(np.mean(np.array(decisions) <= 200.0))


def _figure(system: str, metric: str, unit: str, values: list[float]) -> Figure:
    return Figure(system, metric, unit, *spread(values), len(values))
