"""How far a consumer of a group is behind, without asking the broker each time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import Gauge

_ASK_S = 2.0
Place = tuple[str, int]


class LagBook:
    """Keeps what has been committed of each assigned partition; for the use of one thread.

    Parameters
    ----------
    consumer
        A confluent-kafka consumer.
    gauge
        Where lags are shown, by topic and partition.

    Attributes
    ----------
    commits
        Changes whenever anything has been committed.
    """

    def __init__(self, consumer: Any, gauge: Gauge) -> None:
        self._consumer = consumer
        self._gauge = gauge
        self._committed: dict[Place, int] = {}
        self._shown: set[Place] = set()
        self.commits = 0

    def committed(self, topic: str, ends: dict[int, int]) -> None:
        """Note what has been committed: the next offset by partition."""
        for partition, offset in ends.items():
            self._committed[topic, partition] = offset
        self.commits += 1

    def revoked(self, places: Iterable[Place]) -> None:
        """Forget partitions that went to another member."""
        for place in places:
            self._committed.pop(place, None)

    def measure(self) -> int:
        """Show the lag of each assigned partition, and return their sum."""
        assigned = {(tp.topic, tp.partition): tp for tp in self._consumer.assignment()}
        if unknown := [tp for place, tp in assigned.items() if place not in self._committed]:
            try:
                for tp in self._consumer.committed(unknown, timeout=_ASK_S):
                    self._committed[tp.topic, tp.partition] = tp.offset
            except Exception:  # the broker is away: asked again next time
                return 0
        total = 0
        for place, tp in assigned.items():
            low, high = self._consumer.get_watermark_offsets(tp, cached=True)
            done = self._committed[place]
            lag = max(0, high - (done if done >= 0 else max(low, 0))) if high >= 0 else 0
            self._gauge.labels(place[0], str(place[1])).set(lag)
            total += lag
        for topic, partition in self._shown - assigned.keys():
            self._gauge.remove(topic, str(partition))
        self._shown = set(assigned)
        return total
