"""Shards of a policy, added up, are the policy that one learner learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.policy_learner import PolicyLearner
from learners.shard_keys import shard_key, shard_of
from learners.shards import Statistics, merge_shards, own_sources
from learners.spec import PolicySpec
from learners.state import Origin, StateError
from tests.learners.test_policy_learner import SPEC, reward


def log_of(seeds: list[int], sources: int) -> list[dict[str, Any]]:
    """Rewards of several source partitions as they come, every fifth of them twice."""
    log = []
    for offset, seed in enumerate(seeds):
        log += [reward(seed, decision_id=f"d{offset}", source_partition=seed % sources, source_offset=offset)] * (
            2 if offset % 5 == 0 else 1
        )
    return log


def learned(spec: PolicySpec, log: list[dict[str, Any]], batch: int = 50) -> PolicyLearner:
    learner = PolicyLearner(spec)
    for start in range(0, len(log), batch):
        learner.learn_many(log[start : start + batch])
    return learner


def in_shards(spec: PolicySpec, log: list[dict[str, Any]]) -> dict[int, bytes]:
    return {
        k: learned(spec, [r for r in log if shard_of(r["source_partition"], spec.shards) == k]).to_state()
        for k in range(spec.shards)
    }


def assert_close(found: Any, wanted: Any) -> None:
    """To 1e-9 of the value, or of a millionth of the largest: what a sum cancels to has no digits of its own."""
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-15 * float(np.abs(wanted).max()))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=300), sources=st.integers(1, 9))
def test_one_two_and_four_shards_end_with_the_same_weights(seeds: list[int], sources: int) -> None:
    log = log_of(seeds, sources)
    single = learned(SPEC, log)
    for shards in (1, 2, 4):
        spec = replace(SPEC, shards=shards)
        states = in_shards(spec, log)
        whole = merge_shards(spec, 1, states)
        assert isinstance(whole, PolicyLearner)
        assert (whole.version, whole.applied_hash) == (single.version, single.applied_hash)
        assert whole.sources == single.sources
        for ours, theirs in zip(whole.posteriors(), single.posteriors(), strict=True):
            assert_close(ours.theta, theirs.theta)
            assert_close(ours.noise, theirs.noise)
            d = whole.layout.dim
            assert_close(ours.covariance(d), theirs.covariance(d))
        again = merge_shards(spec, 1, dict(reversed(states.items())))
        assert again.to_state() == whole.to_state()
        assert again.snapshot(5).to_record() == whole.snapshot(5).to_record()


def test_the_only_shard_is_the_single_learner_to_the_bit() -> None:
    log = log_of(list(range(200)), 3)
    single = learned(SPEC, log)
    assert merge_shards(SPEC, 1, {0: single.to_state()}).to_state() == single.to_state()
    assert (SPEC.learned_by, SPEC.reward_key(7)) == ("linear", SPEC.key)
    assert replace(SPEC, shards=1).lineage == SPEC.lineage


def test_the_number_of_shards_is_part_of_the_lineage_and_of_the_snapshot() -> None:
    spec = replace(SPEC, shards=4)
    assert len({spec.lineage, replace(SPEC, shards=2).lineage, SPEC.lineage}) == 3
    assert PolicyLearner(spec).snapshot(1).learner == "linear*4"
    assert [spec.reward_key(p) for p in (0, 3, 4, -1)] == [shard_key(spec.key, k) for k in (0, 3, 0, 3)]
    with pytest.raises(ValueError, match="lineage"):
        merge_shards(spec, 1, {0: PolicyLearner(replace(SPEC, shards=2), 2).to_state()})


def test_shards_that_read_the_same_source_partition_are_not_added() -> None:
    spec = replace(SPEC, shards=2)
    state = learned(spec, log_of([0, 2, 4], 2)).to_state()
    with pytest.raises(ValueError, match="twice"):
        merge_shards(spec, 1, {0: state, 1: state})
    assert own_sources({0: (1, 0), 1: (2, 0), 2: (3, 0), 5: (4, 0)}, 1, 2) == {1: (2, 0), 5: (4, 0)}


def test_statistics_only_grow() -> None:
    learner = learned(SPEC, log_of([1, 2, 3], 1))
    first = Statistics.of(learner.to_state())
    learner.learn_many([reward(9, source_offset=9, mode="FALLBACK", features=[])])
    passed = Statistics.of(learner.to_state())
    learner.learn_many([reward(10, source_offset=10)])
    third = Statistics.of(learner.to_state())
    assert first.origin == Origin.of(first.state)
    order = [first, passed, third]
    assert [[b.follows(a) for b in order] for a in order] == [
        [True, True, True],
        [False, True, True],
        [False, False, True],
    ]
    assert first.follows(None)
    assert Statistics.of(PolicyLearner(SPEC, 2).to_state()).follows(third)
    with pytest.raises(StateError, match="damaged"):
        Statistics.of(first.state[:-40] + b"x" + first.state[-39:])
