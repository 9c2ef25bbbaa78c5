"""One partition of a topic, read from its beginning to where it ends, without a group and without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from steersman.errors import Unreachable
from steersman.kafka_config import follower_config, kafka_logger
from steersman.watermarks import ask_watermarks

_STALL_S = 30.0


@dataclass(frozen=True)
class LogRecord:
    """A record as the broker has it."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, Any]]
    timestamp_ms: int = 0


class PartitionLog:
    """Iterates over the records of a partition.

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
        self.begin = 0

    def __iter__(self) -> Iterator[LogRecord]:
        """Read to the end; Unreachable when the broker does not let us."""
        what = f"topic {self._place.topic} at {self._brokers}"
        consumer = Consumer(follower_config(self._brokers), logger=kafka_logger)
        try:
            self.begin, _ = ask_watermarks(consumer, self._place, _STALL_S)
            consumer.assign([self._place])
            while True:
                message = consumer.poll(_STALL_S)
                if message is None:
                    raise Unreachable(f"the end of {what}", f"No record came for {_STALL_S:.0f} s; look at the broker")
                error, offset, key, headers = message.error(), message.offset(), message.key(), message.headers()
                if error is None:
                    yield LogRecord(
                        -1 if offset is None else offset,
                        key if isinstance(key, bytes) else None,
                        message.value(),
                        headers if isinstance(headers, list) else [],
                        max(message.timestamp()[1], 0),
                    )
                elif error.code() == KafkaError._PARTITION_EOF:
                    return
                else:
                    raise Unreachable(what, error.str())
        except KafkaException as error:
            raise Unreachable(what, error.args[0].str()) from error
        finally:
            consumer.close()
