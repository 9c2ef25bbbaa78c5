"""State topic, producer and topic creation against a real broker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from confluent_kafka.cimpl import NewTopic

from console.brokers import Broker
from steersman.errors import ConfigError, Unreachable
from steersman.topics import Topics
from streams.outputs import DeliveryFailed, OutputRecord, Outputs
from streams.state import StateStore
from streams.topics import check_partitions, create_topics, topic_specs

_numbers = iter(range(1000))


@pytest.fixture
def topics(broker: Broker) -> Topics:
    topics = Topics(f"s{os.getpid()}n{next(_numbers)}")
    create_topics(broker.bootstrap, topics, 2)
    return topics


def with_outputs(broker: Broker, body: Callable[[Outputs], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def run() -> None:
        outputs = Outputs(broker.bootstrap, **options)
        try:
            await body(outputs)
        finally:
            outputs.close()

    asyncio.run(run())


def fill(outputs: Outputs, topic: str, count: int) -> Coroutine[Any, Any, list[int]]:
    return outputs.deliver([OutputRecord(topic, b"k", b"x", partition=1) for _ in range(count)])


def test_gives_back_what_was_saved_last(broker: Broker, topics: Topics) -> None:
    async def body(outputs: Outputs) -> None:
        await fill(outputs, topics.trace, 100)
        store = StateStore(broker.bootstrap, topics.state, outputs)
        empty = await store.take_over("trace", 1, topics.trace)
        assert (empty.items, empty.next_offset) == ({}, None)
        await store.save("trace", 1, {"a": b"1", "b": b"2", "meta": b"m1"}, 10)
        await store.save("trace", 1, {"a": b"3", "b": None, "c/with/slashes": b"4"}, 20)
        other = StateStore(broker.bootstrap, topics.state, outputs)
        assert (await other.take_over("learn", 1, topics.trace)).items == {}
        assert (await other.take_over("trace", 0, topics.trace)).items == {}
        found = await other.take_over("trace", 1, topics.trace)
        assert found.items == {"a": b"3", "c/with/slashes": b"4", "meta": b"m1"}
        assert found.next_offset == 20

    with_outputs(broker, body)


def test_a_former_owner_can_no_longer_change_the_state(broker: Broker, topics: Topics) -> None:
    async def body(outputs: Outputs) -> None:
        await fill(outputs, topics.trace, 100)
        old, new = (StateStore(broker.bootstrap, topics.state, outputs) for _ in range(2))
        await old.take_over("trace", 1, topics.trace)
        await old.save("trace", 1, {"a": b"old"}, 10)
        await new.take_over("trace", 1, topics.trace)
        await new.save("trace", 1, {"a": b"new"}, 30)
        await old.save("trace", 1, {"a": b"zombie", "b": b"zombie"}, 15)
        found = await StateStore(broker.bootstrap, topics.state, outputs).take_over("trace", 1, topics.trace)
        assert (found.items, found.next_offset, found.ignored) == ({"a": b"new"}, 30, 3)

    with_outputs(broker, body)


def test_a_checkpoint_cut_off_before_its_marker_leaves_the_marker_before(broker: Broker, topics: Topics) -> None:
    async def body(outputs: Outputs) -> None:
        await fill(outputs, topics.trace, 100)
        store = StateStore(broker.bootstrap, topics.state, outputs)
        await store.take_over("trace", 1, topics.trace)
        await store.save("trace", 1, {"a": b"1", "meta": b"m1"}, 10)
        owner = store._owners["trace", 1]
        await outputs.deliver([store._record("trace", 1, "a", b"2", owner)])  # and then the process died
        found = await store.take_over("trace", 1, topics.trace)
        assert found.items == {"a": b"2", "meta": b"m1"}
        assert found.next_offset == 10

    with_outputs(broker, body)


def test_an_offset_beyond_the_end_of_the_input_is_refused(broker: Broker, topics: Topics) -> None:
    async def body(outputs: Outputs) -> None:
        await fill(outputs, topics.trace, 5)
        store = StateStore(broker.bootstrap, topics.state, outputs)
        await store.take_over("trace", 1, topics.trace)
        await store.save("trace", 1, {}, 5)
        await store.take_over("trace", 1, topics.trace)
        await store.save("trace", 1, {}, 6)
        with pytest.raises(ConfigError, match=r"up to offset 6, but it ends at \d: the topic was deleted"):
            await store.take_over("trace", 1, topics.trace)

    with_outputs(broker, body)


def test_delivers_whole_batches_in_order_with_key_headers_and_timestamp(broker: Broker, topics: Topics) -> None:
    async def body(outputs: Outputs) -> None:
        records = [
            OutputRecord(
                topics.trace, b"k%d" % n, b"v%d" % n, partition=0, headers=[("h", b"%d" % n)], timestamp_ms=1000 + n
            )
            for n in range(5000)
        ]
        offsets = await outputs.deliver(records)
        assert offsets == list(range(offsets[0], offsets[0] + 5000))

    with_outputs(broker, body)
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "r", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topics.trace, 0, 0)])
    messages = [consumer.poll(5) for _ in range(5000)]
    consumer.close()
    last = messages[-1]
    assert last is not None
    assert (last.key(), last.value(), last.headers(), last.timestamp()[1]) == (
        b"k4999",
        b"v4999",
        [("h", b"4999")],
        5999,
    )


def test_an_output_that_is_not_delivered_raises(broker: Broker, topics: Topics) -> None:
    async def unknown_partition(outputs: Outputs) -> None:
        with pytest.raises(DeliveryFailed):
            await outputs.deliver([OutputRecord(topics.trace, b"k", b"v", partition=77)])

    async def too_large(outputs: Outputs) -> None:
        assert await outputs.deliver([]) == []
        with pytest.raises(DeliveryFailed, match="refused"):
            await outputs.deliver([OutputRecord(topics.trace, b"k", b"v" * (17 << 20))])
        # What comes behind a gap must not be sent.
        with pytest.raises(DeliveryFailed, match="nothing is sent any more"):
            await outputs.deliver([OutputRecord(topics.trace, b"k", b"v")])

    async def run_that_ends_in_one_too_many(outputs: Outputs) -> None:
        await outputs.deliver_run([])
        await outputs.deliver_run([OutputRecord(topics.trace, b"k", b"v", partition=0) for _ in range(3)])
        with pytest.raises(ValueError, match="one topic and partition"):
            await outputs.deliver_run([OutputRecord(topics.trace, b"k", b"v", partition=number) for number in (0, 1)])
        with pytest.raises(DeliveryFailed):
            await outputs.deliver_run([OutputRecord(topics.trace, b"k", b"v", partition=77) for _ in range(3)])

    with_outputs(broker, run_that_ends_in_one_too_many, delivery_timeout_s=1.5)
    with_outputs(broker, unknown_partition, delivery_timeout_s=1.5)
    with_outputs(broker, too_large, delivery_timeout_s=1.5)


def test_topics_are_created_once_and_their_counts_checked(broker: Broker) -> None:
    topics = Topics(f"s{os.getpid()}n{next(_numbers)}")
    assert set(create_topics(broker.bootstrap, topics, 3).values()) == {True}
    # Another count is no reason to touch what exists.
    assert set(create_topics(broker.bootstrap, topics, 5).values()) == {False}
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    counts = {name: len(found.partitions) for name, found in admin.list_topics(timeout=5).topics.items()}
    assert [counts[n] for n in (topics.trace, topics.reward, topics.state, topics.policy)] == [3, 3, 3, 1]
    odd = Topics(f"s{os.getpid()}n{next(_numbers)}")
    admin.create_topics([NewTopic(odd.reward, num_partitions=2, replication_factor=1)])[odd.reward].result(10)
    with pytest.raises(ConfigError, match=r"reward\.v1 has 2 partitions, .*trace\.v1 has 3: they must be equal"):
        create_topics(broker.bootstrap, odd, 3)


def test_kafka_takes_every_topic_setting(kafka: Broker) -> None:
    topics = Topics(f"s{os.getpid()}n{next(_numbers)}")
    create_topics(kafka.bootstrap, topics, 2)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for spec in topic_specs(topics, 2):
        resource = ConfigResource(ResourceType.TOPIC, spec.name)
        found = admin.describe_configs([resource])[resource].result(10)
        assert {name: found[name].value for name in spec.config} == dict(spec.config)


def test_policy_shard_and_state_topics_are_compacted_only() -> None:
    specs = {spec.name: spec for spec in topic_specs(Topics("x"), 12)}
    for name in ("x.policy.v1", "x.shard.v1", "x.state.v1"):
        assert specs[name].config["cleanup.policy"] == "compact"
    assert specs["x.policy.v1"].partitions == specs["x.shard.v1"].partitions == 1
    assert specs["x.state.v1"].partitions == specs["x.trace.v1"].partitions == specs["x.reward.v1"].partitions == 12


def test_the_shard_topic_is_needed_only_by_policies_in_shards() -> None:
    topics = Topics("x")
    existing = {spec.name: spec.partitions for spec in topic_specs(topics, 3)}
    check_partitions(existing, topics, sharded=True)
    with pytest.raises(ConfigError, match=r"shard\.v1 has 2 partitions; it must have 1"):
        check_partitions(existing | {topics.shard: 2}, topics)
    del existing[topics.shard]
    check_partitions(existing, topics)
    with pytest.raises(ConfigError, match=r"shard\.v1 does not exist"):
        check_partitions(existing, topics, sharded=True)


def test_no_broker_no_topics() -> None:
    with pytest.raises(Unreachable, match=r"cannot reach Kafka at 127\.0\.0\.1:1"):
        create_topics("127.0.0.1:1", Topics("x"), timeout_s=0.5)
