"""A policy learned again from the log of its rewards is the same to the bit, however the log is cut, repeated or resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.catalog import LEARNERS
from learners.lineage import Rebuild, differing_fields, rebuild, vector_of
from learners.protocol import Learner
from learners.registry import make_learner, restore_learner
from learners.spec import PolicySpec, RewardSpec
from learners.state import Origin
from steersman.codec import Codec
from steersman.fingerprint import Fingerprint, unsigned
from tests.learners.test_policy_learner import SPEC, reward

LONG = 160
LOG = [
    reward(
        i,
        source_partition=i % 3,
        source_offset=i // 6,
        seq=i // 3 % 2,
        **({"mode": "FALLBACK", "features": []} if i % 11 == 0 else {}),
    )
    for i in range(LONG)
]
CODEC = Codec("policy_snapshot")


def policy_bytes(learner: Learner, now_us: int = 5) -> bytes:
    return CODEC.encode(learner.snapshot(now_us).to_record())


def straight(upto: int, spec: PolicySpec = SPEC, epoch: int = 1) -> Learner:
    learner = make_learner(spec, epoch)
    learner.learn_many(LOG[:upto])
    return learner


def with_repeats(log: Sequence[dict[str, Any]], places: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """The log as a worker that was killed leaves it: now and then a run of records comes again."""
    out: list[dict[str, Any]] = []
    again = dict(places)
    for i, record in enumerate(log):
        out.append(record)
        out.extend(log[max(0, i + 1 - again.get(i, 0)) : i + 1])
    return out


repeats = st.lists(st.tuples(st.integers(0, LONG - 1), st.integers(1, 30)), max_size=6)
cuts = st.lists(st.integers(0, 2 * LONG), max_size=10)


@pytest.mark.parametrize("name", sorted(LEARNERS))
@settings(max_examples=40, derandomize=True, deadline=None)
@given(upto=st.integers(0, LONG), again=repeats, edges=cuts)
def test_any_cutting_of_the_log_gives_the_same_bytes(
    name: str, upto: int, again: list[tuple[int, int]], edges: list[int]
) -> None:
    spec = replace(SPEC, learner=name)
    log = with_repeats(LOG[:upto], again)
    learner = make_learner(spec)
    bounds = [0, *sorted(min(edge, len(log)) for edge in edges), len(log)]
    for start, end in pairwise(bounds):
        report = learner.learn_many(log[start:end])
        assert len(report.outcomes) == end - start
        learner.snapshot(start)  # publishing on the way leaves no trace
    wanted = straight(upto, spec)
    assert learner.to_state() == wanted.to_state()
    assert policy_bytes(learner) == policy_bytes(wanted)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(saved=st.integers(0, LONG), back=st.integers(0, 40), upto=st.integers(0, LONG), again=repeats)
def test_going_on_from_any_saved_state_gives_the_same_bytes(
    saved: int, back: int, upto: int, again: list[tuple[int, int]]
) -> None:
    saved = min(saved, upto)
    learner = restore_learner(SPEC, straight(saved).to_state())
    learner.learn_many(with_repeats(LOG[max(0, saved - back) : upto], again))
    assert learner.to_state() == straight(upto).to_state()
    assert policy_bytes(learner) == policy_bytes(straight(upto))


@settings(max_examples=40, derandomize=True, deadline=None)
@given(upto=st.integers(0, LONG), again=repeats)
def test_the_log_gives_a_state_and_a_published_record_again(upto: int, again: list[tuple[int, int]]) -> None:
    """From the whole log, which has gone on since, up to their vectors."""
    learner = straight(upto)
    state, published = learner.to_state(), CODEC.decode(policy_bytes(learner, 123))
    log = with_repeats(LOG, again)
    origin = Origin.of(state)
    assert rebuild(SPEC, origin.epoch, origin.began, log, origin.sources).to_state() == state
    made = rebuild(SPEC, published["epoch"], origin.began, log, vector_of(published))
    assert policy_bytes(made, published["created_at"]) == policy_bytes(learner, 123)
    ids = Fingerprint()
    for record in LOG[:upto]:
        if record["mode"] != "FALLBACK":
            ids.add(record["decision_id"])
    assert (published["applied_n"], unsigned(published["applied_hash"])) == (ids.n, ids.total)


def test_a_later_epoch_is_rebuilt_from_where_it_began() -> None:
    old = straight(60).to_state()
    spec = replace(SPEC, reward=RewardSpec(metric="stars"))
    log = [
        {**record, "policy_epoch": 2, "reward_spec": spec.reward_hash} if i >= 70 else record
        for i, record in enumerate(LOG)
    ]
    learner = restore_learner(spec, old)
    learner.learn_many(log[60:150])
    origin = Origin.of(learner.to_state())
    assert (origin.epoch, origin.began) == (2, Origin.of(old).sources)
    made = Rebuild(spec, origin.epoch, origin.began, origin.sources)
    made.feed(log[:100])
    assert not made.complete
    made.feed(log[100:])
    assert made.complete
    assert made.learner.to_state() == learner.to_state()


def test_every_change_of_the_log_shows() -> None:
    learner = straight(100)
    state, sources = learner.to_state(), dict(learner.sources)
    for other in (
        [*LOG[:50], {**LOG[50], "quality": 0.123}, *LOG[51:]],
        [*LOG[:50], *LOG[51:]],
        [*LOG[:50], {**LOG[50], "decision_id": "other"}, *LOG[51:]],
        LOG[:99],
    ):
        assert rebuild(SPEC, 1, {}, other, sources).to_state() != state
    assert rebuild(SPEC, 1, {}, LOG, sources).to_state() == state


def test_what_a_shortened_log_lacks() -> None:
    sources = straight(100).sources

    def cut_off(start: int, began: dict[int, tuple[int, int]]) -> list[int]:
        made = Rebuild(SPEC, 1, began, sources)
        made.feed(LOG[start:])
        return made.cut_off()

    assert cut_off(4, {}) == [0, 1, 2]
    assert cut_off(4, straight(20).sources) == []
    assert cut_off(120, dict(sources)) == []  # nothing has come in this epoch yet
    assert cut_off(LONG, straight(20).sources) == [0, 1, 2]


def test_rewards_without_provenance_and_of_other_policies_are_left_out() -> None:
    made = Rebuild(SPEC, 1, {}, straight(20).sources)
    made.feed([reward(500, source_partition=-1), reward(501, policy="else"), *LOG[:20]])
    assert made.unplaced == 1
    assert made.learner.to_state() == straight(20).to_state()


def test_differing_fields_are_named() -> None:
    one, other = straight(50).snapshot(1).to_record(), straight(51).snapshot(2).to_record()
    assert differing_fields(one, one) == []
    found = differing_fields(one, other)
    assert {"version", "created_at", "applied_hash", "weights.cost"} <= set(found)
    assert not {"tensors", "objective", "knobs"} & set(found)


def test_outcomes_agree_with_the_counts() -> None:
    learner = straight(40)
    batch = [
        LOG[39],
        reward(900, source_partition=7),
        reward(901, source_partition=7, mode="FALLBACK", features=[]),
        LOG[40],
    ]
    report = learner.learn_many(batch)
    assert list(report.outcomes) == ["duplicate", "applied", "skipped:fallback", "applied"]
    assert (report.applied, report.duplicates, dict(report.skipped)) == (2, 1, {"fallback": 1})
