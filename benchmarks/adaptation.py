"""How policies adapt: drift, prices, dishonest judges, joint arms. `python -m benchmarks adaptation`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from benchmarks.measure import Figure, say, spread
from benchmarks.worlds import Float, Run, World, fleet, joint_fleet, recorded
from examples.replay.dataset import load
from learners.policy_learner import PolicyLearner
from learners.spec import Learning, PolicySpec, Weights
from steersman.arms import ArmSpace, Level

PAYLOAD = (
    "replays in which only the chosen arm's outcome is revealed, snapshots every 10 decisions, default settings unless the name says otherwise. fleet: the simulated writer, 27 arms; paretobandit: "
    "3,609 prompts, 3 models; joint fleet: five knobs, 162 arms. Swap: the best and the middle arm change places, outcomes and costs, "
    "or the best and the worst their qualities alone; regained: mean utility over the 100 decisions that begin there is 90 % of the new best fixed arm's"
)
SEEDS = range(3)
MORE_SEEDS = range(8)
"""Of poisoned judges on recorded data, where two seeds are luck: a policy is taken in for good or hardly at all."""

_SWAP, _AFTER = 1500, 1000
_WINDOW = 100

MakeWorld = Callable[[int, int], World]


def _recorded(seed: int, n: int) -> World:
    return recorded(load(), seed, n)


WORLDS: tuple[MakeWorld, ...] = (fleet, _recorded)


def figures() -> Iterator[Figure]:
    """All of it, about 15 minutes."""
    for part in (stationary, swaps, price_changes, poison, joint_arms):
        say(part.__name__.replace("_", " "))
        yield from part()


def _run(world: World, seed: int, spec: PolicySpec | None = None, every: int = 10, delay: int = 0) -> Run:
    return Run(world, PolicyLearner(spec or world.spec), every, delay, seed)


def _figure(system: str, metric: str, unit: str, values: list[float]) -> Figure:
    return Figure(system, metric, unit, *spread(values), len(values))


def _without(spec: PolicySpec, **learning: bool) -> PolicySpec:
    return replace(spec, learning=Learning(**learning))


def stationary() -> Iterator[Figure]:
    """What watching for drift costs where there is none."""
    for make in WORLDS:
        lost, alarms = [], []
        for seed in SEEDS:
            world = make(seed, 3000)
            watched = _run(world, seed, _without(world.spec, drift=True)).go(3000)
            plain = _run(world, seed, _without(world.spec, drift=False, robust=False)).go(3000)
            lost.append(float((watched.of(world.utility, 0, 3000) - plain.of(world.utility, 0, 3000)).mean()))
            alarms.append(float(len(watched.alarms)))
        yield _figure(
            f"{world.name}, nothing changes",
            "utility gained with drift detection and bounded influence over plain settings",
            "utility",
            lost,
        )
        yield _figure(f"{world.name}, nothing changes", "false alarms in 3,000 decisions", "alarms", alarms)


def swaps() -> Iterator[Figure]:
    """The best arm and the middle one change places."""
    for make in WORLDS:
        for what, quality_only in (("arms swap", False), ("qualities swap", True)):
            for title, drift in (("drift detection", True), ("no drift detection", False)):
                regained, share, closed = [], [], []
                for seed in SEEDS:
                    calm = make(seed, _SWAP + _AFTER)
                    best, middle = _ranked(calm.utility[:_SWAP])
                    if quality_only:
                        middle = int(calm.quality.mean(axis=0).argmin())
                    world = calm.swapped(best, middle, _SWAP, quality_only=quality_only)
                    run = _run(world, seed, _without(world.spec, drift=drift)).go(_SWAP + _AFTER)
                    new = float(world.utility[_SWAP:].mean(axis=0).max())
                    at, ratio, gap = _regained(run, world.utility, new)
                    regained.append(at)
                    share.append(ratio)
                    closed.append(gap)
                name = f"{world.name}, {what}, {title}"
                yield _figure(name, "decisions until 90 % of the new best is regained", "decisions", regained)
                yield _figure(name, "utility of decisions 400-500 after, of the new best fixed arm's", "share", share)
                yield _figure(name, "of what the old best arm loses, gained back in decisions 400-500", "share", closed)


def _ranked(utility: Float) -> tuple[int, int]:
    order = np.argsort(-utility.mean(axis=0))
    return int(order[0]), int(order[len(order) // 2])


def _regained(run: Run, utility: Float, new: float) -> tuple[float, float, float]:
    got = run.of(utility, _SWAP, _SWAP + _AFTER)
    means = np.convolve(got, np.ones(_WINDOW) / _WINDOW, "valid")
    found = np.flatnonzero(means >= 0.9 * new)
    late = float(got[400:500].mean())
    first = np.bincount(run.arms[_SWAP - 300 : _SWAP], minlength=utility.shape[1]).argmax()
    stale = float(utility[_SWAP:, first].mean())
    return float(found[0]) if len(found) else float(_AFTER), late / new, (late - stale) / max(new - stale, 1e-9)


def price_changes() -> Iterator[Figure]:
    """The price of the arm most taken rises, and policies.toml says so."""
    for make in WORLDS:
        first, before, after = [], [], []
        for seed in SEEDS:
            calm = make(seed, 2000)
            spec = replace(calm.spec, reward=calm.spec.reward.model_copy(update={"weights": _dearly(calm)}))
            world = replace(calm, spec=replace(spec, prices=_prices(spec, None, 1.0)))
            run = _run(world, seed, world.spec).go(1500)
            top = int(np.bincount(run.arms[1200:]).argmax())
            level = world.spec.arms.arms[top]["model"]
            factor = 50.0
            cost = world.cost.copy()
            hit = [i for i, arm in enumerate(world.spec.arms.arms) if arm["model"] == level]
            cost[1500:, hit] *= factor
            run.world = replace(world, cost=cost)
            before.append(float(np.mean([a in hit for a in run.arms[1300:]])))
            run.learner.revise(replace(world.spec, prices=_prices(world.spec, level, factor)))
            run.refresh()
            greedy = run.scorer.score(run.world.x[1500]).greedy
            first.append(float(greedy not in hit))
            run.go(1600)
            after.append(float(np.mean([a in hit for a in run.arms[1500:]])))
        name = f"{world.name}, a price rises 50 times, announced"
        yield _figure(name, "the very next decision's best arm is another", "share", first)
        yield _figure(name, "share of the dear level before", "share", before)
        yield _figure(name, "share of the dear level in the next 100 decisions", "share", after)


def _dearly(world: World) -> Weights:
    """Weights under which fifty times the price matters: a tenth of the quality's spread at the mean price."""
    return world.spec.reward.weights.model_copy(
        update={"cost": 0.02 * world.spec.reward.scales.cost_micro_usd / float(np.median(world.cost))}
    )


def _prices(spec: PolicySpec, level: Level | None, factor: float) -> dict[str, dict[str, float]]:
    return {"model": {str(one): factor if one == level else 1.0 for one in spec.arms.knobs["model"]}}


def best_mix(cost: Float, quality: Float, spent: float) -> float:
    """Highest mean quality of a fixed mixture of two arms whose mean cost is at most `spent`."""
    best = max((float(q) for c, q in zip(cost, quality, strict=True) if c <= spent), default=-np.inf)
    for c, q in zip(cost, quality, strict=True):
        for d, r in zip(cost, quality, strict=True):
            if c <= spent < d:
                share = (spent - c) / (d - c)
                best = max(best, float((1 - share) * q + share * r))
    return best


def poison() -> Iterator[Figure]:
    """Of 200 sources, 10 praise the worst arm and run all others down."""
    for make in WORLDS:
        for lie, low, high, often in (
            ("lies of -20 and 20, eight times as often as the others", -20.0, 20.0, 8),
            ("lies of 0 and 1", 0.0, 1.0, 1),
            ("lies of 0 and 1, eight times as often as the others", 0.0, 1.0, 8),
        ):
            for title, robust, lying in (("default", True, 10), ("no defence", False, 10), ("nobody lies", True, 0)):
                if not lying and low == 0.0:
                    continue
                share = []
                for seed in SEEDS[:2] if make is fleet else MORE_SEEDS:
                    world = make(seed, 2000)
                    worst = int(world.utility.mean(axis=0).argmin())
                    rng = np.random.default_rng((seed, 9))
                    crowd = np.concatenate([np.repeat(np.arange(10), often), np.arange(10, 200)])
                    who = rng.choice(crowd, size=2000)

                    def judge(
                        i: int, arm: int, quality: float, who: Float = who, worst: int = worst
                    ) -> tuple[float, str]:
                        if who[i] < lying:  # noqa: B023
                            quality = high if arm == worst else low  # noqa: B023
                        return quality, f"user{int(who[i])}"

                    run = Run(
                        world, PolicyLearner(_without(world.spec, robust=robust, drift=robust)), seed=seed, judge=judge
                    )
                    run.go(2000)
                    share.append(float(np.mean([a == worst for a in run.arms[1000:]])))
                name = f"{world.name}, 5 % of sources poisoned, {lie}, {title}"
                yield _figure(name, "share of the worst arm, decisions 1,000-2,000", "share", share)


def joint_arms() -> Iterator[Figure]:
    """162 joint arms, factored, against one learner per arm and against the same knobs one by one."""
    regrets: dict[str, list[list[float]]] = {}
    n = 1500
    for seed in SEEDS[:2]:
        world = joint_fleet(seed, n)
        flat = ArmSpace({"arm": list(range(len(world.spec.arms)))})
        ways = {
            "162 arms, factored": world.spec,
            "162 arms, one by one": replace(
                world.spec, arms=flat, baseline=flat.labels[world.spec.arms.index(world.spec.baseline)]
            ),
        }
        oracle = world.utility[:, int(world.utility.mean(axis=0).argmax())]
        for name, spec in ways.items():
            run = _run(replace(world, spec=spec), seed, spec).go(n)
            lost = oracle - run.of(world.utility, 0, n)
            regrets.setdefault(name, []).append(
                [float(lost[a:b].mean()) for a, b in ((0, 500), (500, 1000), (1000, n))]
            )
        few = _fewer(world)
        run = _run(few, seed).go(n)
        lost = few.utility[:, int(few.utility.mean(axis=0).argmax())] - run.of(few.utility, 0, n)
        regrets.setdefault("18 arms of the searcher's knobs alone", []).append(
            [float(lost[a:b].mean()) for a, b in ((0, 500), (500, 1000), (1000, n))]
        )
    for name, rows in regrets.items():
        for k, when in enumerate(("decisions 0-500", "decisions 500-1,000", "decisions 1,000-1,500")):
            yield _figure(
                f"joint fleet, {name}",
                f"regret against the best fixed arm, {when}",
                "utility",
                [row[k] for row in rows],
            )


def _fewer(world: World) -> World:
    """The searcher's knobs alone, the planner's at their baseline."""
    arms = world.spec.arms
    kept = [i for i, arm in enumerate(arms.arms) if arm["plan"] == "full" and arm["subagents"] == 1]
    small = ArmSpace({knob: levels for knob, levels in arms.knobs.items() if knob not in ("plan", "subagents")})
    return world.only(kept, replace(world.spec, arms=small, baseline=small.labels[0]))
