"""What choosing and learning are measured with is what they see in a worker."""

from __future__ import annotations

import pytest

from benchmarks.decisions import SHAPES, context_of, rewards_of, snapshot_of, spec_of
from benchmarks.memory_producer import MemoryProducer
from learners.policy_learner import PolicyLearner
from steersman.codec import Codec


@pytest.mark.parametrize(
    ("shape", "arms", "dim"), [("8 arms, d=16", 8, 16), ("8 arms, d=36", 8, 36), ("162 joint arms, d=32", 162, 32)]
)
def test_policies_have_the_shapes_named(shape: str, arms: int, dim: int) -> None:
    spec = spec_of(shape)
    assert (len(spec.arms), spec.features.dim) == (arms, dim)
    assert list(context_of(shape)) == [feature.name for feature in spec.features.features]
    assert snapshot_of(spec, 300).version == 300


def test_every_reward_is_learned_from_and_is_one_of_the_contract() -> None:
    spec = spec_of(next(iter(SHAPES)))
    rewards = rewards_of(spec, 200)
    assert rewards == rewards_of(spec, 200)
    assert PolicyLearner(spec).learn_many(rewards).applied == 200
    codec = Codec("reward")
    assert codec.decode(codec.encode(rewards[7]))["features"] == rewards[7]["features"]


def test_the_producer_in_memory_reports_every_record_once() -> None:
    reported: list[object] = []
    producer = MemoryProducer({})
    for key in (b"a", b"b"):
        producer.produce("t", value=b"v", key=key, on_delivery=lambda error, message: reported.append(error))
    assert (len(producer), reported) == (2, [])
    assert (producer.poll(0), producer.poll(0)) == (2, 0)
    assert (len(producer), reported) == (0, [None, None])
