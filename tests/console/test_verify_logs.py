"""What verify reads from the logs: every record once, to the very end, whatever it holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from console.brokers import Broker
from console.verify import sides
from console.verify.catch_up import Group, end_of
from console.verify.kafka_side import PolicyLog, RewardLog, TraceLog
from console.verify.log_reader import LogReader
from console.verify.policies import one_content_each
from console.verify.records import EVENT, TICK, UNREADABLE, Letter
from console.verify.span import Span
from steersman import contracts
from steersman.codec import Codec
from steersman.errors import SteersmanError
from steersman.headers import RULES_HEADER
from steersman.kafka_config import producer_config
from steersman.topics import Topics
from streams.topics import create_topics

AT_MS = 1_790_000_000_000
MINUTE = AT_MS // 60_000

Put = Callable[..., None]


@pytest.fixture(params=["broker", "kafka"])
def bus(request: pytest.FixtureRequest) -> Broker:
    running = request.getfixturevalue(request.param)
    assert isinstance(running, Broker)
    return running


@pytest.fixture
def topics(bus: Broker) -> Topics:
    names = Topics(f"verify-{time.time_ns()}")
    create_topics(bus.bootstrap, names, 2)
    return names


@pytest.fixture
def put(bus: Broker) -> Iterator[Put]:
    producer = Producer(producer_config(bus.bootstrap, {"linger.ms": 0}))

    def send(
        topic: str, *values: bytes, partition: int = 0, at_ms: int = AT_MS, headers: dict[str, bytes] | None = None
    ) -> None:
        for value in values:
            producer.produce(topic, value, b"key", partition=partition, timestamp=at_ms, headers=headers)
        assert producer.flush(20) == 0

    yield send
    producer.flush(5)


def record(contract: str, **fields: Any) -> dict[str, Any]:
    """A record of a contract: the fields given, defaults elsewhere, and something harmless where there are none."""
    harmless = {
        "string": "x",
        "bytes": b"",
        "float": 0.5,
        "long": AT_MS * 1000,
        "int": 0,
        "double": 0.5,
        "boolean": False,
    }
    made = {}
    for field in contracts.schema(contract)["fields"]:
        kind = field["type"]
        of_kind = {"enum": "UNKNOWN", "long": AT_MS * 1000, "array": []}
        default = of_kind.get(kind["type"]) if isinstance(kind, dict) else harmless.get(str(kind))
        made[field["name"]] = field.get("default", default)
    return made | fields


def event(identity: str, **fields: Any) -> bytes:
    return Codec("trace_event").encode(record("trace_event", event_id=identity, tenant="t", **fields))


def reward(identity: str, offset: int, seq: int = 0, **fields: Any) -> bytes:
    made = record("reward", decision_id=identity, source_partition=0, source_offset=offset, seq=seq, **fields)
    return Codec("reward").encode(made)


def test_a_version_that_later_rules_made_again_is_not_taken_for_two_contents(
    topics: Topics, bus: Broker, put: Put
) -> None:
    encode = Codec("policy_snapshot").encode
    first, second = (encode(record("policy_snapshot", signature=b"", exploration_scale=scale)) for scale in (0.2, 0.1))
    put(topics.policy, first)
    put(topics.policy, second, headers={RULES_HEADER: b"2"})
    with LogReader(bus.bootstrap, topics.policy) as reader:
        log = PolicyLog(reader)
        log.extend()
        assert one_content_each(log.records).ok
        put(topics.policy, second)
        log.extend()
        assert not one_content_each(log.records).ok
    assert len(log.records) == 3


def test_reading_on_from_where_it_stopped(bus: Broker, topics: Topics, put: Put) -> None:
    put(topics.trace, *(event(f"a{i}", kind="END", cost_micro_usd=i) for i in range(50)))
    put(topics.trace, b"\x00garbage", event("tick", kind="TICK", ts=(AT_MS + 7000) * 1000), partition=1)
    with LogReader(bus.bootstrap, topics.trace) as reader:
        log = TraceLog(reader)
        assert log.extend() == 51
        assert reader.next == {0: 50, 1: 2}
        assert [r.kind for r in log.rows()] == [EVENT] * 50 + [UNREADABLE, TICK]
        assert log.at(0, 7) == (EVENT, "a7", "t", MINUTE, 7, 0, 7)
        assert log.at(0, 50) is None
        assert log.at(9, 0) is None
        # No clock runs ahead of what is sure: the tick's record is 7 s older than the tick.
        assert log.clocks()[1] == AT_MS * 1000
        assert log.extend() == 0
        put(topics.trace, event("b", kind="END"), at_ms=AT_MS + 60_000)
        assert log.extend() == 1
        assert log.at(0, 50) == (EVENT, "b", "t", MINUTE + 1, 0, 0, 50)
        assert log.earliest() == MINUTE
    assert end_of(bus.bootstrap, topics.trace) == ({0: 51, 1: 2}, {0: 0, 1: 0})


def test_sides_of_the_trace_log(bus: Broker, topics: Topics, put: Put) -> None:
    put(topics.trace, event("a", kind="END", cost_micro_usd=5), event("a", kind="END", cost_micro_usd=5), b"\x00bad")
    put(topics.trace, event("old", kind="END"), event("tick", kind="TICK"), partition=1, at_ms=AT_MS - 120_000)
    with LogReader(bus.bootstrap, topics.trace) as reader:
        log = TraceLog(reader)
        log.extend()
        span = Span(MINUTE, MINUTE + 1)
        whole = sides.in_kafka(log, Span()).groups
        assert {key: (f.n, f.amount) for key, f in whole.items()} == {
            ("t", MINUTE): (2, 10),
            ("", MINUTE): (1, 0),
            ("t", MINUTE - 2): (1, 0),
        }
        assert sides.in_kafka(log, span).groups.keys() == {("t", MINUTE), ("", MINUTE)}
        assert sides.distinct_ids(log, set(), span).groups[("t",)].n == 1
        assert sides.valid(log, {(0, 1)}, span).groups[("t", MINUTE)].n == 1
        refused = sides.invalid(log, {(0, 1)}, span)
        assert refused.members is not None
        assert [m.id for m in refused.members([(MINUTE,)])[(MINUTE,)]] == ["0:1", "0:2"]
        letters = [Letter((0, 2), "SINK", MINUTE), Letter((0, 77), "SINK", MINUTE), Letter((1, 0), "SINK", MINUTE - 2)]
        assert {k: f.n for k, f in sides.refused_by_sink(log, letters, span).groups.items()} == {("", MINUTE): 2}


def test_of_repeated_rewards_the_first_counts(bus: Broker, topics: Topics, put: Put) -> None:
    put(topics.trace, *(event(f"e{i}", kind="END") for i in range(3)))
    put(topics.trace, event("e3", kind="END"), at_ms=AT_MS + 60_000)
    rewards = [reward("d1", 0, policy="p"), reward("d2", 0, 1, policy="p"), reward("d3", 3, policy="p")]
    put(topics.reward, *rewards, *rewards[1:], reward("d1", 0, policy="q"), b"\x00bad")
    with LogReader(bus.bootstrap, topics.trace) as first, LogReader(bus.bootstrap, topics.reward) as second:
        log, found = TraceLog(first), RewardLog(second)
        log.extend()
        found.extend()
        assert [r.first for r in found.rows] == [True, True, True, False, False, True, True]
        caused = sides.caused_within(log, Span(MINUTE, MINUTE + 1, whole=False))
        topic = sides.rewards_of(found.rows, caused)
        assert {key: f.n for key, f in topic.groups.items()} == {("x", "p"): 2, ("x", "q"): 1}
        once = sides.to_learn(found.rows, Span(), repeats={(0, 4)})
        assert {key: f.n for key, f in once.groups.items()} == {("x", "p"): 4, ("x", "q"): 1, ("", ""): 1}
        every = sides.to_learn(found.rows, Span(), without={("x", "q")})
        assert {key: f.n for key, f in every.groups.items()} == {("x", "p"): 5, ("", ""): 1}


def test_what_a_group_has_left_to_do(bus: Broker, topics: Topics, put: Put) -> None:
    put(topics.trace, *(event(f"a{i}", kind="END") for i in range(5)))
    end, begin = end_of(bus.bootstrap, topics.trace)
    group = Group(bus.bootstrap, f"{topics.prefix}-streams")
    said: list[str] = []
    try:
        assert group.wait(topics.trace, end, begin, time.monotonic(), said.append).records == 5
        member = Consumer({"bootstrap.servers": bus.bootstrap, "group.id": group.name, "enable.auto.commit": False})
        member.commit(offsets=[TopicPartition(topics.trace, 0, 3)], asynchronous=False)
        assert group.lag(topics.trace, end, begin) == 2
        member.commit(offsets=[TopicPartition(topics.trace, 0, 5)], asynchronous=False)
        member.close()
        assert group.wait(topics.trace, end, begin, time.monotonic() + 5, said.append).records == 0
    finally:
        group.close()


def test_a_topic_that_is_not_there_is_named(bus: Broker) -> None:
    with pytest.raises(SteersmanError, match="none-such"):
        LogReader(bus.bootstrap, "none-such.trace.v1")
