"""Worlds in which every arm's outcome is known, so that a policy can be judged by what it could have done, and the loop in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.fleet.query import draw_query
from examples.fleet.world import BASELINE, JUDGE_SD, KNOBS, SHARE, Upstream, arm_index, means
from examples.replay.dataset import Dataset
from examples.replay.policy import context_of, policy_toml
from learners.policies_file import parse_policies
from learners.policy_learner import PolicyLearner
from learners.spec import PolicySpec, RewardSpec, Scales, Weights
from steersman.arms import ArmSpace
from steersman.features import Categorical, FeatureSpec, Numeric
from steersman.scoring import Scorer, draw
from steersman.snapshot import Multiplier
from steersman.squares import Near

Float = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """What n decisions see, and what every arm would make of them.

    Attributes
    ----------
    name : str
    spec : PolicySpec
        The policy; its arms are the columns.
    x : float32 array (n, d)
    quality, cost, latency : float64 array (n, K)
        Units: the metric's, millionths of a US dollar, microseconds.
    calls : float64 array (n, K), optional
        Tool calls; none by default.
    """

    name: str
    spec: PolicySpec
    x: NDArray[np.float32]
    quality: Float
    cost: Float
    latency: Float
    calls: Float | None = None

    @property
    def utility(self) -> Float:
        """Utility (n, K)."""
        w, s = self.spec.reward.weights, self.spec.reward.scales
        made = (
            w.quality * self.quality - w.cost * self.cost / s.cost_micro_usd - w.latency * self.latency / s.latency_us
        )
        return np.asarray(made)

    def swapped(self, one: int, other: int, start: int, *, quality_only: bool = False) -> World:
        """The same world in which two arms change places from a decision on."""
        changed = []
        for table in (self.quality, self.cost, self.latency):
            new = table.copy()
            if table is self.quality or not quality_only:
                new[start:, one], new[start:, other] = table[start:, other], table[start:, one]
            changed.append(new)
        return replace(self, quality=changed[0], cost=changed[1], latency=changed[2])

    def only(self, arms: Sequence[int], spec: PolicySpec) -> World:
        """The same world with some of the arms, in the order given, under a spec of these."""
        columns = list(arms)
        tables = (self.quality[:, columns], self.cost[:, columns], self.latency[:, columns])
        return replace(self, spec=spec, quality=tables[0], cost=tables[1], latency=tables[2])


def recorded(dataset: Dataset, seed: int, n: int) -> World:
    """Real routing data in a random order, run through as often as n needs."""
    spec = next(iter(parse_policies(policy_toml(dataset))))
    rng = np.random.default_rng(seed)
    passes = -(-n // len(dataset.contexts))
    order = np.concatenate([rng.permutation(len(dataset.contexts)) for _ in range(passes)])[:n]
    x = np.stack([spec.features.encode(context_of(dataset, int(i))) for i in order])
    cost = dataset.cost_micro_usd[order].astype(np.float64)
    return World(dataset.name, spec, x, dataset.quality[order], cost, np.zeros_like(cost))


_FEATURES = FeatureSpec(
    features=(
        Numeric(name="complexity", mean=0.38, scale=0.28),
        Numeric(name="words", mean=2.9, scale=0.45, log=True),
        Categorical(name="kind", values=("lookup", "explain", "compare", "survey")),
        Categorical(name="tier", values=("standard", "enterprise")),
    )
)


def fleet(seed: int, n: int) -> World:
    """The simulated fleet's writer: which model, how much thought, how much of the documents; 27 arms."""
    arms = ArmSpace(KNOBS["synthesis"])
    queries = [draw_query(seed, i) for i in range(n)]
    found = [means("synthesis", query, Upstream(1, 7200)) for query in queries]
    spec = _fleet_spec("synthesis", arms, arms.label_of(BASELINE["synthesis"]))
    tables = [np.stack([getattr(one, part) for one in found]) for part in ("quality", "cost", "latency")]
    return _noisy("fleet", spec, queries, tables, seed)


def joint_fleet(seed: int, n: int) -> World:
    """The fleet's planner and searcher as one policy: five knobs, 162 joint arms."""
    knobs = {**KNOBS["orchestrator"], **KNOBS["retrieval"]}
    arms = ArmSpace(knobs)
    queries = [draw_query(seed, i) for i in range(n)]
    plan = np.array([arm_index("orchestrator", {k: arm[k] for k in KNOBS["orchestrator"]}) for arm in arms.arms])
    search = np.array([arm_index("retrieval", {k: arm[k] for k in KNOBS["retrieval"]}) for arm in arms.arms])
    workers = [int(arm["subagents"]) for arm in arms.arms]
    tables = [np.zeros((n, len(arms))) for _ in range(3)]
    share = SHARE["orchestrator"] + SHARE["retrieval"]
    for i, query in enumerate(queries):
        planned = means("orchestrator", query)
        found = {count: means("retrieval", query, Upstream(count)) for count in set(workers)}
        own = [found[count] for count in workers]
        for table, part in zip(tables, ("quality", "cost", "latency"), strict=True):
            searched = np.array([getattr(one, part)[a] for one, a in zip(own, search, strict=True)])
            if part == "quality":
                mixed = SHARE["orchestrator"] * planned.quality[plan] + SHARE["retrieval"] * searched
                table[i] = mixed / share
            else:
                table[i] = getattr(planned, part)[plan] + searched
    baseline = arms.label_of({**BASELINE["orchestrator"], **BASELINE["retrieval"]})
    return _noisy("joint fleet", _fleet_spec("joint", arms, baseline), queries, tables, seed)


def _fleet_spec(name: str, arms: ArmSpace, baseline: str) -> PolicySpec:
    reward = RewardSpec(
        weights=Weights(quality=1.0, cost=0.05, latency=0.15),
        scales=Scales(cost_micro_usd=40_000.0, latency_us=4_500_000.0),
    )
    return PolicySpec("default", f"bench/{name}", arms, baseline, _FEATURES, reward)


def _noisy(name: str, spec: PolicySpec, queries: Sequence[Any], tables: Sequence[Float], seed: int) -> World:
    rng = np.random.default_rng((seed, 77))
    shape = tables[0].shape
    quality = np.clip(tables[0] + JUDGE_SD * rng.standard_normal(shape), 0.0, 1.0)
    cost = tables[1] * np.exp(rng.normal(-0.005, 0.1, shape))
    latency = tables[2] * np.exp(rng.normal(-0.02, 0.2, shape))
    x = np.stack([spec.features.encode(query.context()) for query in queries])
    return World(name, spec, x, quality, cost, latency)


@dataclass
class Run:
    """A policy at work in a world.

    Attributes
    ----------
    world : World
    learner : PolicyLearner
    every, delay : int
        Decisions between two snapshots, and by which rewards come late.
    arms : list of int
        What was chosen.
    alarms : list of int
        Decisions at which the detectors found a change.
    prices : list of tuple of Multiplier
        Those of the ceilings under which each decision was made.
    squares : list of list of Near
        What steady ceilings charged each decision for the square of use.
    """

    world: World
    learner: PolicyLearner
    every: int = 10
    delay: int = 0
    seed: int = 0
    arms: list[int] = field(default_factory=list)
    alarms: list[int] = field(default_factory=list)
    judge: Callable[[int, int, float], tuple[float, str | None]] | None = None
    prices: list[tuple[Multiplier, ...]] = field(default_factory=list)
    squares: list[list[Near]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng((self.seed, 5))
        self._late: list[dict[str, Any]] = []
        self.refresh()

    def refresh(self) -> None:
        """Decide by what is known now."""
        self.scorer = Scorer(self.learner.snapshot(0))
        self._version = self.learner.version
        self._squares = self.scorer.snapshot.squares

    def go(self, end: int) -> Run:
        """Decide and learn up to a decision."""
        for i in range(len(self.arms), end):
            if i % self.every == 0 and len(self._late) > self.delay:
                report = self.learner.learn_many(self._late[: len(self._late) - self.delay])
                del self._late[: len(self._late) - self.delay]
                self.alarms += [i] * len(report.alarms)
                self.refresh()
            arm = draw(self.scorer.score(self.world.x[i]).propensity, self._rng.random())
            self.arms.append(arm)
            self.prices.append(self.scorer.snapshot.multipliers)
            self.squares.append(self._squares)
            self._late.append(self.reward(i, arm))
        return self

    def reward(self, i: int, arm: int) -> dict[str, Any]:
        """What the join would make of decision i if it had taken an arm."""
        world, spec = self.world, self.learner.spec
        quality, source = float(world.quality[i, arm]), None
        if self.judge is not None:
            quality, source = self.judge(i, arm, quality)
        return {
            "decision_id": f"d{i}", "tenant": spec.tenant, "policy": spec.name, "arm": spec.arms.labels[arm], "mode": "LIVE",
            "features": world.x[i].tolist(), "policy_epoch": self.learner.epoch, "policy_version": self._version,
            "reward_spec": spec.reward_hash, "quality": quality, "cost_micro_usd": float(world.cost[i, arm]),
            "latency_us": float(world.latency[i, arm]), "failures": 0.0, "source": source,
            "tool_calls": 0.0 if world.calls is None else float(world.calls[i, arm]),
            "source_partition": -1, "source_offset": -1, "seq": 0,
        }  # fmt: skip

    def of(self, table: Float, start: int, end: int) -> Float:
        """What the chosen arms made of decisions, from a table (n, K)."""
        return np.asarray(table[np.arange(start, end), self.arms[start:end]])
