"""How far a consumer group has come, asked from outside while brokers come and go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True)
class Progress:
    """Where a group is.

    Attributes
    ----------
    committed
        Offset from which it would go on, by partition; the start of the log where it has committed nothing.
    ends
        Offset of the next record to be written, by partition.
    """

    committed: Mapping[Place, int]
    ends: Mapping[Place, int]

    @property
    def lag(self) -> int:
        """Records written and not yet committed."""
        return sum(max(0, self.ends[place] - offset) for place, offset in self.committed.items())

    def moved_since(self, earlier: Progress) -> bool:
        """Whether every partition that had something to do has got ahead since."""
        return all(
            self.committed[place] > before or before >= earlier.ends[place]
            for place, before in earlier.committed.items()
        )


class GroupWatch:
    """Asks for the progress of one group; joins nothing.

    Parameters
    ----------
    brokers
        Bootstrap servers.
    group
        The group.
    topics
        The topics it reads.
    """

    def __init__(self, brokers: str, group: str, topics: Sequence[str]):
        self._topics = topics
        self._places: list[Place] = []
        self._consumer = Consumer(
            {"bootstrap.servers": brokers, "group.id": group, "enable.auto.commit": False, "log_level": 0}
        )

    def look(self, timeout_s: float = 3.0) -> Progress | None:
        """Return where the group is, None while the broker does not say."""
        try:
            if not self._places:
                self._places = [
                    (topic, number)
                    for topic in self._topics
                    for number in self._consumer.list_topics(topic, timeout=timeout_s).topics[topic].partitions
                ]
            asked = [TopicPartition(*place) for place in self._places]
            committed, ends = {}, {}
            for tp in self._consumer.committed(asked, timeout=timeout_s):
                place = (tp.topic, tp.partition)
                low, ends[place] = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=timeout_s)
                committed[place] = tp.offset if tp.offset >= 0 else low
        except KafkaException:
            return None
        return Progress(committed, ends)

    def close(self) -> None:
        self._consumer.close()
