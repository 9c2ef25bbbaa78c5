"""The small fixed things: topic names, ids, errors."""

from __future__ import annotations

import random
import re

import pytest

from steersman import errors, ids
from steersman.errors import ConfigError, DecodeError, SteersmanError, Unreachable
from steersman.topics import Topics


def test_topic_names() -> None:
    topics = Topics("acme")
    assert [
        topics.trace,
        topics.reward,
        topics.rollup,
        topics.alert,
        topics.policy,
        topics.shard,
        topics.dead_letter,
        topics.state,
    ] == [
        "acme.trace.v1",
        "acme.reward.v1",
        "acme.rollup.v1",
        "acme.alert.v1",
        "acme.policy.v1",
        "acme.shard.v1",
        "acme.dead-letter.v1",
        "acme.state.v1",
    ]


@pytest.mark.parametrize("prefix", ["", "a b", "a_b", ".a", "ä", "a" * 201])
def test_a_prefix_that_kafka_would_refuse(prefix: str) -> None:
    with pytest.raises(ConfigError, match="STEERSMAN_TOPIC_PREFIX"):
        Topics(prefix)


def test_every_error_is_one_of_ours() -> None:
    for name in ("ConfigError", "DecodeError", "InvalidRecord", "SnapshotError", "Unreachable"):
        assert issubclass(getattr(errors, name), SteersmanError)
    assert (DecodeError("magic", "d").reason, str(DecodeError("magic", "d"))) == ("magic", "magic: d")
    assert str(Unreachable("Kafka at a:1", "Is it up?")) == "cannot reach Kafka at a:1. Is it up?"
    assert str(Unreachable("Kafka at a:1")) == "cannot reach Kafka at a:1."


def test_ids_do_not_follow_the_applications_seed() -> None:
    random.seed(0)
    one = ids.new_trace_id(), ids.new_span_id(), ids.new_event_id()
    random.seed(0)
    two = ids.new_trace_id(), ids.new_span_id(), ids.new_event_id()
    assert not set(one) & set(two)
    assert [len(i) for i in one] == [32, 16, 32]
    assert all(re.fullmatch("[0-9a-f]+", i) for i in one)


def test_decision_ids_come_apart() -> None:
    trace, span = ids.new_trace_id(), ids.new_span_id()
    assert ids.parse_decision_id(f"{trace}-{span}") == (trace, span)
    for bad in ("", trace, f"{trace}_{span}", f"{trace}-{span}0", f"{trace.upper()[:-1]}G-{span}", None, 5):
        assert ids.parse_decision_id(bad) is None


def test_equal_arguments_have_equal_hashes() -> None:
    assert ids.args_hash({"a": 1, "b": [2]}) == ids.args_hash({"b": [2], "a": 1})
    assert ids.args_hash({"a": 1}) != ids.args_hash({"a": 2})
    assert re.fullmatch("[0-9a-f]{16}", ids.args_hash(("x", object, "\ud800")))
