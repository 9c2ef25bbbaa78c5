"""Reading a topic to its end, and later further."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from steersman.errors import SteersmanError, Unreachable
from steersman.kafka_config import follower_config, kafka_logger
from steersman.watermarks import ask_watermarks

FIRST_US, LAST_US = 946_684_800_000_000, 4_102_444_800_000_000
"""Kafka timestamps that the sink keeps, the years 2000 to 2100; of others it keeps 0."""
_AT_ONCE = 10_000
_WAIT_S = 0.05  # for a full batch, so also what every read to the end costs at least
_ASK_S = 10.0
_SILENCE_S = 30.0


class LogReader:
    """Reads every record of a topic once, each time from where it stopped to the end; joins no group.

    The end is where a fetch finds nothing more: the high watermark that the embedded broker (Tansu 0.6) names is up to
    one batch too low.

    Parameters
    ----------
    brokers
        Bootstrap servers.
    topic
        The topic.
    from_high
        Start at the high watermarks, to find the ends without reading all.

    Attributes
    ----------
    first
        First offset that the log still held, by partition.
    next
        Next offset to read, by partition: after `read`, the end.
    """

    def __init__(self, brokers: str, topic: str, *, from_high: bool = False) -> None:
        self.topic = topic
        self._brokers = brokers
        self._consumer = Consumer(follower_config(brokers), logger=kafka_logger)
        try:
            partitions = self._partitions()
            marks = {p: self._marks(p) for p in partitions}
        except KafkaException as e:
            self._consumer.close()
            raise Unreachable(f"Kafka at {brokers}", f"it does not describe topic {topic} ({e.args[0].str()})") from e
        except BaseException:
            self._consumer.close()
            raise
        self.first = {p: low for p, (low, _) in marks.items()}
        self.next = {p: max(low, high) if from_high else low for p, (low, high) in marks.items()}

    def read(self) -> Iterator[Message]:
        """Read on to the end of every partition.

        Raises
        ------
        Unreachable
            When nothing comes for long.
        """
        unread = set(self.next)
        self._consumer.assign([TopicPartition(self.topic, p, offset) for p, offset in self.next.items()])
        heard = time.monotonic()
        while unread:
            batch = self._consumer.consume(_AT_ONCE, _WAIT_S)
            if batch:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE_S:
                raise Unreachable(f"Kafka at {self._brokers}", f"topic {self.topic} gave nothing for {_SILENCE_S:g} s")
            for message in batch:
                partition, offset = message.partition() or 0, message.offset()
                error = message.error()
                if error is None:
                    self.next[partition] = (offset or 0) + 1
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    self.next[partition] = max(self.next[partition], offset or 0)
                    unread.discard(partition)
                elif error.fatal() or not error.retriable():
                    raise KafkaException(error)

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _partitions(self) -> list[int]:
        topic = self._consumer.list_topics(self.topic, timeout=_ASK_S).topics.get(self.topic)
        if topic is None or topic.error is not None or not topic.partitions:
            raise SteersmanError(
                f"topic {self.topic} does not exist at {self._brokers}; create it with 'steersman topics --create'"
            )
        return sorted(topic.partitions)

    def _marks(self, partition: int) -> tuple[int, int]:
        return ask_watermarks(self._consumer, TopicPartition(self.topic, partition), _ASK_S)


def stamp_of(message: Message) -> int:
    """Kafka timestamp of a record; unit: milliseconds since 1970-01-01 UTC, 0 for none or one that the sink does not keep."""
    kind, stamp = message.timestamp()
    return stamp if kind and FIRST_US <= stamp * 1000 < LAST_US else 0
