"""Batches that librdkafka refuses, and headers on which confluent-kafka fails: everybody who reads them goes on."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from doors.counting import Counting
from doors.intake import Intake
from doors.mapped import Rules
from doors.publisher import Publisher
from doors.topic import TopicDoor
from serving.health import Health
from serving.metrics import MetricSet
from sinks.settings import SinkSettings
from sinks.sink import Sink
from steersman.bad_batch import end_of_batch, is_bad, why
from steersman.codec import Codec
from steersman.dead_letter import CUT, read_failure
from steersman.headers import UNREADABLE, headers_of
from steersman.kafka_config import MAX_BATCH_BYTES, follower_config
from steersman.subscriber import PolicySubscriber
from steersman.topics import Topics
from streams.topic_watch import TopicWatch
from tests.doors.payloads import request
from tests.mock_kafka import mock_kafka
from tests.raw_batches import badly_named, batch, send
from tests.trust.snapshots import snapshot

MIB = 1 << 20
KEY = snapshot().key.encode()


@pytest.fixture(scope="module")
def brokers() -> Iterator[str]:
    with mock_kafka() as address:
        yield address


@pytest.fixture
def topics() -> Topics:
    return Topics(f"b{uuid.uuid4().hex[:8]}")


def bomb(n: int = 1) -> bytes:
    """A batch of n records, of which the first is too large once decompressed; some 12 KB."""
    return batch("zstd", bytes(40 * MIB), *[b"x"] * (n - 1), key=KEY)


def policy(version: int) -> bytes:
    return batch("none", Codec("policy_snapshot").encode(snapshot(version=version).to_record()), key=KEY)


def reader(brokers: str, topic: str, at: int = 0) -> Consumer:
    consumer = Consumer(follower_config(brokers, {"log_level": 0}))
    consumer.assign([TopicPartition(topic, 0, at)])
    return consumer


def first(consumer: Consumer) -> Message:
    deadline = time.monotonic() + 15
    while (message := consumer.poll(0.2)) is None:
        assert time.monotonic() < deadline
    return message


def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("before", "n", "behind"), [(0, 1, 1), (3, 1, 1), (2, 2, 4), (1, 7, 1), (0, 100, 2), (4, 5, 0)]
)
def test_where_a_batch_ends_is_found(brokers: str, topics: Topics, before: int, n: int, behind: int) -> None:
    [*_, at] = send(brokers, topics.trace, *[batch("lz4", b"v")] * before, bomb(n))
    if behind:
        send(brokers, topics.trace, batch("lz4", *[b"v"] * behind))
    consumer = reader(brokers, topics.trace, at)
    message = first(consumer)
    error = message.error()
    assert error is not None
    assert is_bad(error)
    assert end_of_batch(follower_config(brokers), message) == (at, at + n)
    consumer.close()


def test_two_batches_in_a_row_are_two(brokers: str, topics: Topics) -> None:
    send(brokers, topics.trace, bomb(3), bomb(2), batch("none", b"v"))
    for at, end in ((0, 3), (3, 5)):
        consumer = reader(brokers, topics.trace, at)
        assert end_of_batch(follower_config(brokers), first(consumer)) == (at, end)
        consumer.close()
    assert why(3, 5) == f"offsets 3 to 4: more than {MAX_BATCH_BYTES >> 20} MiB decompressed, or damaged".encode()
    assert not is_bad(KafkaError(KafkaError._PARTITION_EOF))


def test_headers_that_are_not_utf_8_are_one_header_that_says_so(brokers: str, topics: Topics) -> None:
    send(brokers, topics.trace, badly_named(*[b"v"] * 100, bad=-1), badly_named(b"v0", b"v1", b"v2", bad=1))
    consumer = reader(brokers, topics.trace)
    for _ in range(100):  # a line that has run often is run another way
        assert headers_of(first(consumer)) == [("fine", b"x")]
    found = [first(consumer) for _ in range(3)]
    for _ in range(2):  # confluent-kafka fails once, and hands out an empty hull from then on
        assert [headers_of(message) for message in found] == [
            [("fine", b"x")],
            [(UNREADABLE, b"a name is not UTF-8")],
            [("fine", b"x")],
        ]
    consumer.close()


def test_a_subscriber_goes_on_behind_them(brokers: str, topics: Topics) -> None:
    bad = badly_named(b"v", bad=0, key=KEY)
    send(brokers, topics.policy, policy(1), bomb(), bomb(3), bad, policy(2))
    with PolicySubscriber(brokers, topics=topics, tenant="acme") as subscriber:
        assert subscriber.wait_ready(20)
        until(lambda: (held := subscriber.get(snapshot().policy)) is not None and held.snapshot.version == 2)
        send(brokers, topics.policy, bomb(2), policy(3))
        until(lambda: (held := subscriber.get(snapshot().policy)) is not None and held.snapshot.version == 3)
        counts = subscriber.stats()["counts"]
    assert counts["bad_batch"] == 3
    assert counts["bad:magic"] == 1


def test_who_follows_a_topic_reads_it_to_its_end(brokers: str, topics: Topics) -> None:
    seen: list[bytes | None] = []

    class Watch(TopicWatch):
        def take(self, message: Message) -> None:
            seen.append(message.value())

    send(brokers, topics.control, batch("none", b"a"), bomb(2), batch("none", b"b"), bomb())
    watch = Watch(brokers, topics.control)
    try:
        watch.read_to_end(20)
        assert seen == [b"a", b"b"]
        send(brokers, topics.control, bomb(3), batch("none", b"c"))
        watch.read_to_end(20)
        assert seen == [b"a", b"b", b"c"]
    finally:
        watch.close()


def test_the_sink_has_a_record_for_each_of_them(brokers: str, topics: Topics) -> None:
    """What it takes is what becomes rows and dead letters; the store is not asked here."""
    plain = {
        "event_id": "e",
        "tenant": "t",
        "trace_id": "1" * 32,
        "span_id": "1" * 16,
        "agent": "a",
        "kind": "END",
        "ts": 1,
    }
    event = Codec("trace_event").encode(plain)
    good = batch("none", event)
    send(
        brokers,
        topics.trace,
        good,
        bomb(3),
        bomb(),
        good,
        badly_named(b"v", bad=0),
        batch("gzip", bytes(40 * MIB)),
        good,
    )
    sink = Sink(SinkSettings(brokers=brokers, topic_prefix=topics.prefix))
    sink._consumer.assign([TopicPartition(topics.trace, 0, 0)])
    batches = sink.writers[topics.trace]

    def taken() -> list[int]:
        sink._intake.take_all(sink._consumer.consume(100, 0.1))
        return [m.offset for m in batches._filling.messages] if batches._filling else []

    until(lambda: taken()[-1:] == [8])
    assert batches._filling is not None
    messages = batches._filling.messages
    assert [m.offset for m in messages] == [0, 3, 4, 5, 6, 7, 8]
    assert [m.value for m in messages] == [event, b"", b"", event, b"v", bytes(MAX_BATCH_BYTES), event]
    assert dict(messages[1].headers) == {"steersman.batch": why(1, 4)}
    assert dict(messages[4].headers).keys() == {UNREADABLE}
    assert dict(messages[5].headers) == {"steersman.batch": b"a value of %d bytes" % (40 * MIB)}
    sink._consumer.close()


def test_the_doors_write_a_dead_letter_for_each_of_them(brokers: str, topics: Topics) -> None:
    spans = request({"gen_ai.operation.name": "chat"}).SerializeToString()
    otlp = f"{topics.prefix}-otlp"
    send(brokers, otlp, batch("none", spans), bomb(2), batch("gzip", bytes(20 * MIB)), badly_named(b"\xff", bad=0))
    send(brokers, otlp, batch("none", spans))
    metrics, codec = MetricSet("doors"), Codec("trace_event")
    publisher = Publisher(brokers, max_waiting=1000, timeout_s=10)
    counting = Counting(metrics)
    intake = Intake(topics.trace, codec, Rules(), max_spans=100, dead_letter_topic=topics.dead_letter)
    door = TopicDoor(
        brokers, otlp, f"{otlp}-group", dead_letter_topic=topics.dead_letter, intake=intake, publisher=publisher,
        counting=counting, health=Health(), tenant="t", max_bytes=8 * MIB,
    )  # fmt: skip
    door.start()
    try:
        until(lambda: metrics.registry.get_sample_value("steersman_door_events_total", {"kind": "MODEL_CALL"}) == 2)
        read = metrics.registry.get_sample_value
        for reason in ("bad_batch", "too_large", "bad_protobuf"):
            assert read("steersman_door_refusals_total", {"door": "topic", "reason": reason}) == 1, reason
        assert door.trouble() is None
    finally:
        door.close(10)
        publisher.close(10)
    letters = []
    for partition in range(
        len(publisher._producer.list_topics(topics.dead_letter, timeout=5).topics[topics.dead_letter].partitions)
    ):
        consumer = Consumer(follower_config(brokers))
        consumer.assign([TopicPartition(topics.dead_letter, partition, 0)])
        while (message := first(consumer)).error() is None:
            letters.append((read_failure(headers_of(message)), message.value() or b""))
        consumer.close()
    told = sorted((one.offset, one.reason, len(value)) for one, value in letters)
    assert told == [(2, "bad_batch", 0), (3, "too_large", CUT), (4, "bad_protobuf", 1)]
