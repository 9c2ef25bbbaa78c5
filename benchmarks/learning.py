"""What learning costs, ours and other libraries'. Runs in the learners' environment: see `benchmarks.environments`."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from benchmarks.decisions import SHAPES, rewards_of, spec_of
from benchmarks.measure import Figure, per_call_us
from benchmarks.peers.bandits import BANDITS
from learners.policy_learner import PolicyLearner
from learners.spec import Policies, PolicySpec
from steersman.codec import Codec
from streams.learning_stage import LearningStage

Records = Sequence[tuple[int, int, Mapping[str, Any]]]

_BATCH = 500
_BUSY_S = 3.5
"""Time that the stage works per repeat: one checkpoint and several snapshots fall into it."""
_CHECKPOINT_S = 3.0
_REWARDS_PER_S = 50_000
"""Rate of the records' Kafka timestamps: how many minutes the ledger has to keep."""


def figures() -> Iterator[Figure]:
    """The stage that learns in a worker, the learner in it, and the others."""
    for shape in SHAPES:
        spec = spec_of(shape)
        rewards = rewards_of(spec, 20_000)
        for name, decode in (("LearningStage.process", False), ("decoding and LearningStage.process", True)):
            yield _rate(f"{name}, {shape}", partial(_stage_cpu_us, spec, rewards, decode))
    for shape in SHAPES:
        yield from _ours(shape)
        yield from _theirs(shape)


def _rate(system: str, cpu_us: Callable[[], float], repeats: int = 3) -> Figure:
    """Rewards per second of CPU on one core."""
    costs = [cpu_us() for _ in range(repeats)]
    rates = [round(1e6 / cost) for cost in costs]
    middle = statistics.median(costs)
    return Figure(
        system,
        "rewards per CPU second",
        "1/s",
        statistics.median(rates),
        min(rates),
        max(rates),
        repeats,
        round(middle, 3),
    )


def _stage_cpu_us(spec: PolicySpec, rewards: list[dict[str, Any]], decode: bool) -> float:
    """CPU time per reward of a stage that always has work, by its own clock: how long it has been at work."""
    stage = LearningStage(Policies.of(spec), 0, 1)
    stage.published({})
    codec = Codec("reward")
    busy_s = checkpointed_s = 0.0
    n = 0
    while busy_s < _BUSY_S:
        for start in range(0, len(rewards), _BATCH):
            batch = _next_records(rewards[start : start + _BATCH], n)
            bodies = [codec.encode(reward) for _, _, reward in batch] if decode else []
            now_us = int(busy_s * 1e6)
            started = time.process_time()
            if decode:
                batch = [(offset, ts, codec.decode(body)) for (offset, ts, _), body in zip(batch, bodies, strict=True)]
            stage.process(batch, now_us=now_us, monotonic_us=now_us)
            if busy_s - checkpointed_s >= _CHECKPOINT_S:
                checkpointed_s = busy_s
                stage.audit()
                stage.dump_dirty()
            busy_s += time.process_time() - started
            n += len(batch)
    return busy_s / n * 1e6


def _next_records(rewards: list[dict[str, Any]], n: int) -> Records:
    """The rewards as the next ones of their source partition and of the log."""
    for i, reward in enumerate(rewards, n):
        reward["source_offset"] = i
    start_us = 1_700_000_000_000_000
    return [(i, start_us + i * 1_000_000 // _REWARDS_PER_S, reward) for i, reward in enumerate(rewards, n)]


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
