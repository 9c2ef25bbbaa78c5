"""One partition of a topic, read from its beginning, without a group and without a trace."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from steersman.errors import Unreachable
from steersman.headers import headers_of
from steersman.kafka_config import follower_config, kafka_logger
from steersman.watermarks import ask_watermarks

_STALL_S = 30.0
_POLL_S = 0.2


@dataclass(frozen=True)
class LogRecord:
    """A record as the broker has it."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, Any]]
    timestamp_ms: int = 0


class PartitionLog:
    """Iterates over the records of a partition, to where it ends.

    Parameters
    ----------
    brokers, topic, partition
        Which one.

    Attributes
    ----------
    begin
        First offset that the broker still holds; known once the iteration has begun.
    """

    def __init__(self, brokers: str, topic: str, partition: int) -> None:
        self._brokers = brokers
        self._place = TopicPartition(topic, partition, OFFSET_BEGINNING)
        self._what = f"topic {topic} at {brokers}"
        self.begin = 0

    def __iter__(self) -> Iterator[LogRecord]:
        """Read to the end; Unreachable when the broker does not let us."""
        for message in self._messages(_STALL_S):
            if message is None:
                raise Unreachable(
                    f"the end of {self._what}", f"No record came for {_STALL_S:.0f} s; look at the broker"
                )
            if (record := self._record(message)) is None:
                return
            yield record

    def follow(self, stop: threading.Event) -> Iterator[LogRecord | None]:
        """Read on and on until told to stop; None whenever there is nothing more for now. Unreachable as above."""
        for message in self._messages(_POLL_S):
            if stop.is_set():
                return
            yield None if message is None else self._record(message)

    def _messages(self, timeout_s: float) -> Iterator[Message | None]:
        consumer = Consumer(follower_config(self._brokers), logger=kafka_logger)
        try:
            self.begin, _ = ask_watermarks(consumer, self._place, _STALL_S)
            consumer.assign([self._place])
            while True:
                yield consumer.poll(timeout_s)
        except KafkaException as error:
            raise Unreachable(self._what, error.args[0].str()) from error
        finally:
            consumer.close()

    def _record(self, message: Message) -> LogRecord | None:
        """What came; None at the end of the partition."""
        error, offset, key = message.error(), message.offset(), message.key()
        if error is None:
            return LogRecord(
                -1 if offset is None else offset,
                key if isinstance(key, bytes) else None,
                message.value(),
                list(headers_of(message)),
                max(message.timestamp()[1], 0),
            )
        if error.code() == KafkaError._PARTITION_EOF:
            return None
        raise Unreachable(self._what, error.str())
