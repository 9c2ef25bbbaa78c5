"""The newest statistics of every shard, as the shard topic says: what is added up to a policy."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from confluent_kafka import Message

from learners.shards import NO_STATISTICS, ByShard, Statistics
from learners.state import StateError
from streams.topic_watch import TopicWatch


class ShardWatch(TopicWatch):
    """Follows the shard topic on a thread of its own.

    Parameters
    ----------
    brokers
        Comma-separated `host:port` list.
    topic
        The shard topic.
    kafka
        librdkafka settings that win over ours.
    """

    def __init__(self, brokers: str, topic: str, *, kafka: Mapping[str, Any] | None = None) -> None:
        super().__init__(brokers, topic, kafka)
        self._held: dict[tuple[str, str], Statistics] = {}
        self._shown: ByShard = NO_STATISTICS
        self._news = False

    @property
    def statistics(self) -> ByShard:
        """Newest statistics; another object after every change, never changed itself.

        Only what was the newest at some end of the topic: between two ends, a compacted topic may show statistics together
        that never were the newest at the same time, and two such sums could have the same version.
        """
        return self._shown

    def take(self, message: Message) -> None:
        """Take note of a shard's statistics."""
        key, value = message.key(), message.value()
        if not isinstance(key, bytes) or value is None:
            return
        item = key.decode(errors="replace")
        try:
            seen = Statistics.of(value)
        except StateError as error:
            self._throttle.warn("statistics of %s in %s are passed over: %s", item, self._topic, error)
            return
        place = item, seen.origin.lineage
        if seen.follows(self._held.get(place)):
            self._held[place] = seen
            self._news = True

    def rest(self) -> None:
        """Show what has come."""
        if self._news:
            self._news = False
            self._shown = MappingProxyType(dict(self._held))
