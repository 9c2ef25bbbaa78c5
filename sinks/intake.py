"""From what the consumer hands out to the sink's messages, also where something cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from sinks.tables import Message
from steersman.bad_batch import HEADER, end_of_batch, is_bad, why
from steersman.errors import Unreachable
from steersman.headers import headers_of
from steersman.kafka_config import MAX_BATCH_BYTES, follower_config

log = structlog.get_logger("steersman.sink")


class Intake:
    """Takes what a consumer hands out; for the thread of that consumer.

    Parameters
    ----------
    consumer
        A confluent-kafka consumer.
    brokers
        Kafka bootstrap servers.
    add
        Gets the messages, in the order of each partition's log.
    """

    def __init__(self, consumer: Any, brokers: str, add: Callable[[Message], object]):
        self._consumer = consumer
        self._brokers = brokers
        self._add = add
        self._passed: dict[tuple[str, int], int] = {}

    def take(self, message: Any) -> None:
        """Take what the consumer handed out: a record, or what there is instead of one.

        Raises
        ------
        KafkaException
            The consumer cannot go on.
        """
        error = message.error()
        if error is not None:
            if error.fatal():
                raise KafkaException(error)
            if is_bad(error):
                self._step_over(message)
                return
            if error.code() != KafkaError._PARTITION_EOF:
                log.warning("kafka", error=str(error))
            return
        kind, stamp = message.timestamp()
        value, headers = message.value(), headers_of(message)
        if value is not None and len(value) > MAX_BATCH_BYTES:
            # No table takes it: what waits for a dead letter need not be a gigabyte.
            headers.append((HEADER, f"a value of {len(value)} bytes".encode()))
            value = value[:MAX_BATCH_BYTES]
        self._add(
            Message(
                message.topic(),
                message.partition(),
                message.offset(),
                message.key(),
                value,
                headers,
                stamp if kind else -1,
            )
        )

    def forget(self, topic: str, partition: int) -> None:
        """Forget a partition, which somebody else reads now."""
        self._passed.pop((topic, partition), None)

    def _step_over(self, message: Any) -> None:
        """Go on behind a batch that cannot be decompressed; in its place comes a record that becomes a dead letter."""
        topic, partition = message.topic(), message.partition()
        if message.offset() < self._passed.get((topic, partition), 0):
            return  # said several times before the seek
        try:
            base, end = end_of_batch(follower_config(self._brokers), message)
            self._consumer.seek(TopicPartition(topic, partition, end))
        except (KafkaException, Unreachable) as e:  # it comes again
            log.warning("batch_not_passed", topic=topic, partition=partition, error=str(e))
            return
        self._passed[topic, partition] = end
        log.warning("batch_refused", topic=topic, partition=partition, first=base, last=end - 1)
        self._add(Message(topic, partition, end - 1, None, b"", [(HEADER, why(base, end))]))
