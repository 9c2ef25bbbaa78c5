"""What every learner of the catalog must do."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from learners.catalog import LEARNERS
from learners.protocol import Learner
from learners.registry import make_learner, restore_learner
from learners.spec import PolicySpec
from steersman.codec import Codec
from steersman.scoring import Scorer
from steersman.snapshot import PolicySnapshot
from tests.learners.test_policy_learner import SPEC, reward

REWARDS = [reward(i) for i in range(120)]


RIVERS = ("squarecb:linear_model.LinearRegression", "squarecb:tree.HoeffdingTreeRegressor")


@pytest.fixture(params=[*sorted(LEARNERS), *RIVERS])
def spec(request: pytest.FixtureRequest) -> PolicySpec:
    return replace(SPEC, learner=request.param)


def taught(spec: PolicySpec, n: int) -> Learner:
    learner = make_learner(spec)
    learner.learn_many(REWARDS[:n])
    return learner


def published(learner: Learner) -> bytes:
    """The bytes that go to the policy topic."""
    return Codec("policy_snapshot").encode(learner.snapshot(7).to_record())


def test_runs_repeat(spec: PolicySpec) -> None:
    assert published(taught(spec, 120)) == published(taught(spec, 120))


def test_goes_on_from_its_state_as_if_nothing_had_happened(spec: PolicySpec) -> None:
    straight, before = taught(spec, 120), taught(spec, 50)
    resumed = restore_learner(spec, before.to_state())
    resumed.learn_many(REWARDS[50:])
    assert resumed.to_state() == straight.to_state()
    assert published(resumed) == published(straight)


def test_a_repeated_reward_changes_nothing(spec: PolicySpec) -> None:
    learner = taught(spec, 120)
    state = learner.to_state()
    assert learner.learn_many(REWARDS[100:]).duplicates == 20
    assert learner.to_state() == state


def test_garbage_is_skipped_and_counted(spec: PolicySpec) -> None:
    learner = taught(spec, 10)
    bad = [
        reward(200, quality=float("nan")),
        reward(201, quality=float("inf")),
        reward(202, arm="model=unheard;k=2"),
        reward(203, features=[1.0]),
        reward(204, reward_spec="0" * 16),
    ]
    report = learner.learn_many(bad)
    assert report.applied == 0
    assert sum(report.skipped.values()) == len(bad)
    assert learner.version == 10


def test_its_snapshot_is_a_policy_with_stated_propensities(spec: PolicySpec) -> None:
    for n in (0, 1, 120):
        snapshot = taught(spec, n).snapshot(7)
        codec = Codec("policy_snapshot")
        received = PolicySnapshot.from_record(codec.decode(codec.encode(snapshot.to_record())))
        assert json.loads(received.features.model_dump_json()) == json.loads(spec.features.model_dump_json())
        assert (received.version, received.baseline) == (n, spec.baseline)
        x = spec.features.encode({"n": 0.3, "c": "x"})
        ours, theirs = Scorer(snapshot).score(x), Scorer(received).score(x)
        assert np.array_equal(ours.propensity, theirs.propensity)
        assert theirs.propensity.sum() == pytest.approx(1.0)
        assert theirs.propensity.min() >= snapshot.floor / len(spec.arms) * (1 - 1e-12)


def test_what_two_learned_from_different_source_partitions_adds_up(spec: PolicySpec) -> None:
    log = [reward(i, source_partition=i % 2) for i in range(120)]
    whole, parts = make_learner(spec), [make_learner(spec), make_learner(spec)]
    whole.learn_many(log)
    for part, learner in enumerate(parts):
        learner.learn_many(log[part::2])
    parts[0].merge(parts[1])
    ours, theirs = parts[0].snapshot(7), whole.snapshot(7)
    assert (ours.version, ours.applied_hash) == (theirs.version, theirs.applied_hash)
    assert ours.applied_sources == theirs.applied_sources
    for name, tensor in theirs.tensors.items():
        np.testing.assert_allclose(ours.tensors[name], tensor, rtol=1e-5, atol=1e-6 * float(np.abs(tensor).max()))
