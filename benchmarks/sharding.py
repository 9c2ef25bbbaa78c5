"""What a policy in shards costs: a process that learns one of them, and the sum of all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.decisions import SHAPES, rewards_of, spec_of
from benchmarks.measure import Figure, per_call_us
from benchmarks.stage_rate import rate, stage_cpu_us
from learners.policies import Policies
from learners.policy_learner import PolicyLearner
from learners.shard_keys import shard_key, shard_of
from learners.shards import merge_shards
from learners.spec import PolicySpec
from streams.learning_stage import LearningStage, partition_of

PAYLOAD = (
    "Avro rewards of 12 source partitions in batches of 500. A shard's process decodes and learns its own, publishes its "
    "statistics and saves its state at the pace of a worker that always has work; the processes of a policy share nothing, so a "
    "policy of N shards takes N times as many rewards. A sum reads the states of N shards of 20,000 rewards together, adds "
    "them up and makes the snapshot"
)
_SHARDS = (1, 2, 4)
_SOURCES = 12
_PARTITIONS = 64
"""So many that no two parts of the policy are in one of them."""


def figures() -> Iterator[Figure]:
    """Learning in one shard of 1, 2 and 4, and adding up."""
    for shape in SHAPES:
        base = spec_of(shape)
        rewards = [{**reward, "source_partition": i % _SOURCES} for i, reward in enumerate(rewards_of(base, 20_000))]
        for shards in _SHARDS:
            yield from _figures(replace(base, shards=shards), rewards, f"{shards} shard{'s' * (shards > 1)}, {shape}")


def _figures(spec: PolicySpec, rewards: list[dict[str, Any]], title: str) -> Iterator[Figure]:
    parts: list[list[dict[str, Any]]] = [[] for _ in range(spec.shards)]
    for reward in rewards:
        parts[shard_of(reward["source_partition"], spec.shards)].append(reward)
    yield rate(f"one of {title}", partial(stage_cpu_us, partial(_stage, spec), parts[0], decode=True))
    learners = [PolicyLearner(spec) for _ in parts]
    for learner, part in zip(learners, parts, strict=True):
        learner.learn_many(part)
    states = {k: learner.to_state() for k, learner in enumerate(learners)}
    if merge_shards(spec, 1, states).version != len(rewards):
        raise RuntimeError("some rewards were not learned: the figures would be of another sum")

    def publish() -> int:
        learners[0].to_state()
        return 1

    def add_up() -> int:
        merge_shards(spec, 1, states).snapshot(0)
        return 1

    yield per_call_us(title, f"statistics of one, {len(states[0])} bytes", publish)
    yield per_call_us(title, "sum and snapshot", add_up)


def _stage(spec: PolicySpec) -> LearningStage:
    """The stage of the partition of the first shard."""
    key = spec.key if spec.shards == 1 else shard_key(spec.key, 0)
    stage = LearningStage(Policies.of(spec), partition_of(key, _PARTITIONS), _PARTITIONS)
    if len(stage) != 1:
        raise RuntimeError("another part of the policy is in the shard's partition")
    return stage
