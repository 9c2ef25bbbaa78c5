"""Apache Kafka for a measurement: on a core of its own, with topics filled beforehand."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from console.brokers import KAFKA_VERSION, start_kafka
from steersman.errors import ConfigError, SteersmanError

VERSIONS = {"apache-kafka": KAFKA_VERSION}
BROKER_CORE, WORK_CORE = 0, 1


class Undelivered(SteersmanError):
    """The broker does not have all that a measurement needs."""


@dataclass(frozen=True, slots=True)
class Message:
    """A record to be filled in; timestamp in milliseconds since 1970-01-01 UTC."""

    partition: int
    key: bytes
    value: bytes
    timestamp_ms: int


@contextlib.contextmanager
def kafka(*, pinned: bool) -> Iterator[tuple[str, Path]]:
    """Run a broker; gives its `host:port` and a folder for logs, which goes with it.

    Parameters
    ----------
    pinned
        Keep the broker and this process on core 0, so that core 1 belongs to whom is measured.

    Raises
    ------
    ConfigError
        Without Java or Maven, or without two cores to pin to.
    """
    allowed = os.sched_getaffinity(0)
    if pinned and not {BROKER_CORE, WORK_CORE} <= allowed:
        raise ConfigError(f"this benchmark pins its processes to cores 0 and 1; allowed are {sorted(allowed)}")
    with tempfile.TemporaryDirectory(prefix="steersman-bench-", ignore_cleanup_errors=True) as temporary:
        if pinned:
            os.sched_setaffinity(0, {BROKER_CORE})  # children inherit it
        try:
            broker = start_kafka(Path(temporary) / "kafka")
            try:
                yield broker.bootstrap, Path(temporary)
            finally:
                broker.stop()
        finally:
            os.sched_setaffinity(0, allowed)


def on_work_core(command: list[str]) -> list[str]:
    """Return a command that runs another on the core that is left to it."""
    return ["taskset", "-c", str(WORK_CORE), *command]


def create(brokers: str, topic: str, partitions: int) -> None:
    """Create a topic."""
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    for created in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
        created.result(15)


def drop(brokers: str, topics: Iterable[str]) -> None:
    """Delete topics, so that a broker's disk and memory are not those of the measurements before."""
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    for deleted in admin.delete_topics(list(topics)).values():
        with contextlib.suppress(KafkaException):
            deleted.result(15)


def topics_of(brokers: str, prefix: str) -> list[str]:
    """Return the topics whose names begin so."""
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    return [name for name in admin.list_topics(timeout=15).topics if name.startswith(prefix)]


def fill(brokers: str, topic: str, messages: Iterable[Message]) -> int:
    """Write messages in order; returns how many.

    Raises
    ------
    Undelivered
        When the broker does not have them all.
    """
    failures: list[KafkaError] = []
    producer = Producer(
        {
            "bootstrap.servers": brokers,
            "enable.idempotence": True,
            "linger.ms": 20,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 500_000,
            "log_level": 2,
        }
    )
    count = 0
    for message in messages:
        while True:
            try:
                producer.produce(
                    topic,
                    message.value,
                    message.key,
                    message.partition,
                    on_delivery=lambda error, _: failures.append(error) if error else None,
                    timestamp=message.timestamp_ms,
                )
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
        if count % 1000 == 0:
            producer.poll(0)
    missing = producer.flush(60)
    if missing or failures:
        raise Undelivered(f"{missing + len(failures)} of {count} messages did not reach {topic}: {failures[:1]}")
    return count


def read(brokers: str, topic: str) -> Iterator[bytes]:
    """Yield the values of a whole topic, partition after partition.

    Raises
    ------
    Undelivered
        When neither a record nor the end comes.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "benchmark-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 2,
        }
    )
    try:
        for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
            consumer.assign([TopicPartition(topic, partition, 0)])
            ended, patience = False, time.monotonic() + 60
            while not ended:
                messages = consumer.consume(5000, timeout=0.5)
                if not messages and time.monotonic() > patience:
                    raise Undelivered(f"neither a record nor the end of {topic}, partition {partition}, for 60 s")
                for message in messages:
                    error = message.error()
                    if error is None:
                        yield message.value() or b""
                    elif error.code() == KafkaError._PARTITION_EOF:
                        ended = True
                    else:
                        raise KafkaException(error)
    finally:
        consumer.close()


class Committed:
    """What a consumer group has committed on a topic.

    Parameters
    ----------
    brokers, group, topic, partitions
        Whose.
    """

    def __init__(self, brokers: str, group: str, topic: str, partitions: int) -> None:
        self._places = [TopicPartition(topic, number) for number in range(partitions)]
        self._consumer = Consumer(
            {"bootstrap.servers": brokers, "group.id": group, "enable.auto.commit": False, "log_level": 0}
        )

    def records(self) -> int:
        """Return the sum of the committed offsets, 0 while the broker does not know."""
        try:
            return sum(max(0, place.offset) for place in self._consumer.committed(self._places, timeout=10))
        except KafkaException:
            return 0

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


def assigned(brokers: str, group: str) -> list[int]:
    """Return the number of partitions of each member of a group that is stable, nothing while it is not."""
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    try:
        described = admin.describe_consumer_groups([group])[group].result(10)
    except (KafkaException, TimeoutError):
        return []
    if described.state.name != "STABLE":
        return []
    return [len(member.assignment.topic_partitions) for member in described.members]


def now_us() -> int:
    """Return the time; unit: microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000
