"""Messages that wait for their insert, cut on the offsets of the partitions they came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import numpy as np

from sinks.tables import Message


@dataclass(frozen=True)
class Rejected:
    """A message that cannot become a row, and why."""

    message: Message
    error: Exception


class Batch:
    """Messages of one topic for one table.

    Parameters
    ----------
    table
        Name of the table.
    started
        When its first message came; unit: seconds of the caller's clock.

    Attributes
    ----------
    messages
        In the order in which they came; offsets of a partition grow.
    size
        Their size in Kafka; unit: bytes.
    """

    def __init__(self, table: str, started: float):
        self.table = table
        self.started = started
        self.messages: list[Message] = []
        self.size = 0

    @property
    def count(self) -> int:
        """Messages."""
        return len(self.messages)

    def add(self, message: Message) -> None:
        self.messages.append(message)
        self.size += len(message.value or b"")

    def drop(self, partition: int) -> None:
        """Forget a partition, which somebody else reads now."""
        self._keep([m for m in self.messages if m.partition != partition])

    def cut(self, count: int) -> None:
        """Forget all messages but the first."""
        self._keep(self.messages[:count])

    def _keep(self, messages: list[Message]) -> None:
        self.messages = messages
        self.size = sum(len(m.value or b"") for m in messages)

    def by_partition(self) -> list[Message]:
        """All messages, partition by partition."""
        return sorted(self.messages, key=attrgetter("partition"))

    def positions(self) -> dict[int, int]:
        """Next offset to read, by partition."""
        return {message.partition: message.offset + 1 for message in self.messages}

    def token(self, topic: str) -> str:
        """Deduplication token: a pure function of table, topic, and each partition's offsets, bytes and Kafka timestamps.

        Bytes and timestamps are in it because a server drops an insert whose token it knows, whatever the rows: after a
        topic was deleted and created anew, offsets alone would name other records.
        """
        parts = [self.table, topic]
        for partition, group in groupby(self.by_partition(), attrgetter("partition")):
            run = list(group)
            values = [message.value or b"" for message in run]
            # The lengths keep neighbours apart: 'ab','c' and 'a','bc' are different batches.
            digest = hashlib.blake2b(np.array([len(value) for value in values], "<i8").tobytes(), digest_size=16)
            digest.update(np.array([message.timestamp_ms for message in run], "<i8").tobytes())
            digest.update(b"".join(values))
            parts.append(f"{partition}:{run[0].offset}-{run[-1].offset}:{digest.hexdigest()}")
        return hashlib.sha256("|".join(parts).encode()).hexdigest()
