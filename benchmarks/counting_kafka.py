"""The Kafka side of the counting job: events in at a pace, progress, and the counts that came out."""

from __future__ import annotations

import json
import time
import uuid

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from benchmarks.counting_job import PARTITIONS, make_events
from steersman.codec import Codec

_TIMEOUT_S = 10.0


class EventProducer:
    """Produces the job's events, idempotently and in order.

    Parameters
    ----------
    bootstrap, topic
        Where to.
    seed, count
        Which events.
    """

    def __init__(self, bootstrap: str, topic: str, seed: int, count: int) -> None:
        self._topic = topic
        encode = Codec("trace_event").encode
        # Encoded beforehand, so that the pace is that of the clock alone.
        self._events = [(e.partition, e.counter.encode(), encode(e.record)) for e in make_events(seed, count)]
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 5, "log_level": 2}
        )
        self._error: KafkaError | None = None
        self.sent = 0

    def send_up_to(self, count: int) -> None:
        """Send until this many events have been sent in all."""
        for partition, key, value in self._events[self.sent : count]:
            self._producer.produce(self._topic, value, key, partition=partition, on_delivery=self._delivered)
            self.sent += 1
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until the broker has all that was sent.

        Raises
        ------
        RuntimeError
            When it has not: the comparison would blame the worker for it.
        """
        missing = self._producer.flush(30)
        if missing or self._error is not None:
            raise RuntimeError(f"{missing} events were not delivered to {self._topic}, last error: {self._error}")

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        self._error = error or self._error


class Progress:
    """How far a consumer group and a topic have come.

    Parameters
    ----------
    bootstrap, group
        Whose progress.
    source
        Topic that the group consumes.
    target
        Topic that it writes its counts to.
    """

    def __init__(self, bootstrap: str, group: str, source: str, target: str) -> None:
        self._source = [TopicPartition(source, number) for number in range(PARTITIONS)]
        self._target = [TopicPartition(target, number) for number in range(PARTITIONS)]
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                # Else an open transaction would hide the offsets committed before it.
                "isolation.level": "read_uncommitted",
                "log_level": 2,
            }
        )

    def committed(self) -> int:
        """Return the sum of the group's committed offsets, which is the number of events done; unit: events."""
        deadline = time.monotonic() + 3 * _TIMEOUT_S
        while True:
            try:
                places = self._consumer.committed(self._source, timeout=_TIMEOUT_S)
                return sum(max(0, place.offset) for place in places)
            except KafkaException:
                # A broker that has just started is still finding out who coordinates the group.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def written(self) -> int:
        """Return the sum of the target's end offsets."""
        return sum(self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)[1] for place in self._target)

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


def warm_up(bootstrap: str) -> None:
    """Make a fresh broker create its internal topics of groups and transactions.

    Else the first worker's session would run out while it waits for them, which is no fault that was planned.
    """
    warm = f"warm-up-{uuid.uuid4().hex}"
    deadline = time.monotonic() + 60.0
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": warm, "log_level": 2})
    while True:
        try:
            consumer.committed([TopicPartition(warm, 0)], timeout=_TIMEOUT_S)
            break
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    consumer.close()
    Producer({"bootstrap.servers": bootstrap, "transactional.id": warm, "log_level": 2}).init_transactions(60.0)


def read_counts(bootstrap: str, topic: str) -> dict[str, tuple[int, int]]:
    """Return counter -> (events, sum): the last committed record of each counter in a topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "counting-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "log_level": 2,
        }
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    counts: dict[str, tuple[int, int]] = {}
    open_partitions = set(range(PARTITIONS))
    try:
        while open_partitions:
            message = consumer.poll(_TIMEOUT_S)
            if message is None:
                raise RuntimeError(f"no record and no end of {topic} for {_TIMEOUT_S:.0f} s")
            error = message.error()
            if error is None:
                key, value = message.key(), message.value()
                if key is not None and value is not None:
                    events, total, *_ = json.loads(value)
                    counts[json.loads(key)] = events, total
            elif error.code() == KafkaError._PARTITION_EOF:
                open_partitions.discard(message.partition())
            else:
                raise KafkaException(error)
    finally:
        consumer.close()
    return counts
