"""How far consumer groups are behind the end of their topics."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from confluent_kafka import Consumer, KafkaException, TopicPartition

from steersman.kafka_config import group_config, kafka_logger


class LagMeter:
    """Measures the lag of one consumer group over some topics; asks only the broker, joins no group.

    On the embedded broker it reads up to one batch a partition too low: Tansu 0.6 gives the first offset of the last
    batch for the end of a partition.

    Parameters
    ----------
    brokers
        Bootstrap servers.
    group
        Consumer group to look at.
    topics
        Its topics.
    """

    def __init__(self, brokers: str, group: str, topics: Sequence[str]):
        self._topics = topics
        self._consumer = Consumer(group_config(brokers, group), logger=kafka_logger)

    def lag(self) -> int | None:
        """Return records not yet committed, summed over partitions; None when the broker does not answer."""
        try:
            total = 0
            for topic in self._topics:
                partitions = self._consumer.list_topics(topic, timeout=3).topics[topic].partitions
                for tp in self._consumer.committed([TopicPartition(topic, p) for p in partitions], timeout=3):
                    low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, tp.partition), timeout=3)
                    total += max(0, high - (tp.offset if tp.offset >= 0 else low))
        except KafkaException:
            return None
        return total

    def end(self) -> int | None:
        """Return the records ever written to the topics, as far as offsets tell; None when the broker does not answer."""
        try:
            return sum(
                self._consumer.get_watermark_offsets(TopicPartition(t, p), timeout=3)[1]
                for t in self._topics
                for p in self._consumer.list_topics(t, timeout=3).topics[t].partitions
            )
        except KafkaException:
            return None

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> LagMeter:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
