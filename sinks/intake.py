"""From what the consumer hands out to the sink's messages, also where something cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from serving.gaps import Gaps
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
    whole
        Topics in which no offset is missing, but for what retention has deleted.
    """

    def __init__(
        self, consumer: Any, brokers: str, add: Callable[[Message], object], whole: Collection[str] = frozenset()
    ):
        self._consumer = consumer
        self._brokers = brokers
        self._add = add
        self._whole = whole
        self._gaps: Gaps[tuple[str, int]] = Gaps()
        self._passed: dict[tuple[str, int], int] = {}

    def take_all(self, messages: Iterable[Any]) -> None:
        """Take what the consumer handed out at once.

        Raises
        ------
        KafkaException
            The consumer cannot go on.
        """
        void: set[tuple[str, int]] = set()  # of these all that follows comes again
        run: tuple[str, int] | None = None  # the partition at hand, while its offsets go on
        due = -1
        for message in messages:
            here, offset = (message.topic(), message.partition()), message.offset()
            whole = here[0] in self._whole and message.error() is None
            if not whole or here != run or offset != due:
                if run is not None:
                    self._gaps.seek(run, due)
                run = None
                if here in void:
                    continue
                again = self._gaps.take(here, (offset,))[1] if whole else None
                if again is not None and self._read_again(here, again, offset):
                    void.add(here)
                    continue
                run = here if whole else None
            due = offset + 1
            self.take(message)
        if run is not None:
            self._gaps.seek(run, due)

    def _read_again(self, place: tuple[str, int], offset: int, behind: int) -> bool:
        """Go back to records that a fetch has passed over; False when that is not possible now."""
        try:
            self._consumer.seek(TopicPartition(*place, offset))
        except KafkaException as e:  # the partition is on its way to somebody else, who reads them
            log.warning("not_read_again", topic=place[0], partition=place[1], offset=offset, error=str(e))
            return False
        log.warning("read_again", topic=place[0], partition=place[1], offset=offset, records_came_first=behind)
        return True

    def take(self, message: Any) -> None:
        """Take a record, or what there is instead of one.

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
        self._gaps.forget([(topic, partition)])

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
        self._gaps.seek((topic, partition), end)
        log.warning("batch_refused", topic=topic, partition=partition, first=base, last=end - 1)
        self._add(Message(topic, partition, end - 1, None, b"", [(HEADER, why(base, end))]))
