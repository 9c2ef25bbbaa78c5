"""What learning costs, ours and other libraries'. Runs in the learners' environment: see `benchmarks.environments`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from benchmarks.decisions import SHAPES, rewards_of, spec_of
from benchmarks.measure import Figure, per_call_us
from benchmarks.peers.bandits import BANDITS
from benchmarks.stage_rate import rate, stage_cpu_us
from learners.policies import Policies
from learners.policy_learner import PolicyLearner
from streams.learning_stage import LearningStage

_BATCH = 500


def figures() -> Iterator[Figure]:
    """The stage that learns in a worker, the learner in it, and the others."""
    for shape in SHAPES:
        spec = spec_of(shape)
        rewards = rewards_of(spec, 20_000)
        for name, decode in (("LearningStage.process", False), ("decoding and LearningStage.process", True)):
            stage = partial(LearningStage, Policies.of(spec), 0, 1)
            yield rate(f"{name}, {shape}", partial(stage_cpu_us, stage, rewards, decode=decode))
    for shape in SHAPES:
        yield from _ours(shape)
        yield from _theirs(shape)


def _ours(shape: str) -> Iterator[Figure]:
    spec = spec_of(shape)
    rewards = rewards_of(spec, 5000)

    def one_by_one() -> int:
        learner = PolicyLearner(spec)
        for reward in rewards[:1000]:
            learner.learn_one(reward)
        return 1000

    def batches() -> int:
        learner = PolicyLearner(spec)
        for i in range(0, len(rewards), _BATCH):
            learner.learn_many(rewards[i : i + _BATCH])
        return len(rewards)

    trained = PolicyLearner(spec)
    trained.learn_many(rewards)

    def snapshots() -> int:
        for _ in range(10):
            trained.snapshot(0)
        return 10

    yield per_call_us(f"PolicyLearner.learn_one, {shape}", "per reward", one_by_one)
    yield per_call_us(f"PolicyLearner.learn_many({_BATCH}), {shape}", "per reward", batches)
    yield per_call_us(f"PolicyLearner.snapshot, {shape}", "per snapshot", snapshots)


def _theirs(shape: str) -> Iterator[Figure]:
    spec = spec_of(shape)
    names = [f"x{i}" for i in range(spec.features.dim)]
    rows = [
        (dict(zip(names, reward["features"], strict=True)), spec.arms.index(reward["arm"]), reward["quality"])
        for reward in rewards_of(spec, 2 * _BATCH)
    ]
    for make in BANDITS:
        peer = make(len(spec.arms))
        peer.learn(rows[:_BATCH])

        def batch(learn: Callable[[Any], None] = peer.learn) -> int:
            learn(rows[_BATCH:])
            return _BATCH

        def single(learn: Callable[[Any], None] = peer.learn) -> int:
            for row in rows[:20]:
                learn([row])
            return 20

        yield per_call_us(f"{peer.name}, {shape}", f"per reward, {_BATCH} at once", batch, repeats=3)
        yield per_call_us(f"{peer.name}, {shape}", "per reward, one by one", single, repeats=3)


if __name__ == "__main__":
    for figure in figures():
        print(json.dumps(asdict(figure)), flush=True)
