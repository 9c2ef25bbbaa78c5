"""Waiting until consumer groups have passed a point of their topics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition

from console.verify.log_reader import LogReader
from steersman.errors import Unreachable
from steersman.kafka_config import group_config, kafka_logger

Offsets = Mapping[int, int]
"""Offset by partition."""

_POLL_S = 0.2


@dataclass(frozen=True)
class Lag:
    """Records that a group had not committed when the wait ended."""

    group: str
    topic: str
    records: int


class Group:
    """Committed offsets of a consumer group; asks only the broker, joins nothing.

    Parameters
    ----------
    brokers
        Bootstrap servers.
    group
        The group.
    """

    def __init__(self, brokers: str, group: str) -> None:
        self.name = group
        self._brokers = brokers
        self._consumer = Consumer(group_config(brokers, group), logger=kafka_logger)

    def lag(self, topic: str, cut: Offsets, first: Offsets) -> int:
        """Count the records below the cut that are not committed; `first` is where the log begins.

        Raises
        ------
        Unreachable
            When the broker does not answer.
        """
        try:
            answer = self._consumer.committed([TopicPartition(topic, p) for p in cut], timeout=10)
        except KafkaException as e:
            raise Unreachable(f"Kafka at {self._brokers}", f"offsets of group {self.name}: {e.args[0].str()}") from e
        return sum(max(0, cut[tp.partition] - max(tp.offset, first.get(tp.partition, 0))) for tp in answer)

    def wait(self, topic: str, cut: Offsets, first: Offsets, deadline: float, progress: Callable[[str], None]) -> Lag:
        """Wait until the group has committed everything below the cut, or until the deadline (monotonic seconds)."""
        said = 0.0
        while (records := self.lag(topic, cut, first)) and time.monotonic() < deadline:
            if time.monotonic() - said >= 2:
                said = time.monotonic()
                progress(f"{self.name} has {records} records of {topic} to go")
            time.sleep(_POLL_S)
        return Lag(self.name, topic, records)

    def close(self) -> None:
        self._consumer.close()


def end_of(brokers: str, topic: str) -> tuple[dict[int, int], dict[int, int]]:
    """Find where a topic ends and where it begins, reading no more than its last records."""
    with LogReader(brokers, topic, from_high=True) as reader:
        for _ in reader.read():
            pass
        return dict(reader.next), dict(reader.first)
