"""Rows that wait for their insert, cut on the offsets of the partitions they came from."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

from sinks.tables import Message, Row

_PREFIX = struct.Struct("<Iq")


@dataclass(frozen=True)
class Rejected:
    """A message that cannot become a row, and why."""

    message: Message
    error: Exception


@dataclass
class Run:
    """Consecutive messages of one partition.

    Attributes
    ----------
    first, last
        Offsets of the first and the last message.
    rows
        Rows made of them, in order; fewer than messages, since not every message is stored.
    rejected
        Those that cannot be stored.
    count
        Messages.
    size
        Their size in Kafka; unit: bytes.
    """

    first: int
    last: int
    rows: list[Row] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    count: int = 0
    size: int = 0
    digest: hashlib.blake2b = field(default_factory=lambda: hashlib.blake2b(digest_size=16))


class Batch:
    """Messages of one topic for one table, at most one run per partition.

    Parameters
    ----------
    table
        Name of the table.
    started
        When its first message came; unit: seconds of the caller's clock.
    """

    def __init__(self, table: str, started: float):
        self.table = table
        self.started = started
        self.runs: dict[int, Run] = {}
        self.count = 0
        self.size = 0

    def add(self, message: Message, row: Row | None = None, error: Exception | None = None) -> None:
        """Append a message: with its row, with the error that kept it from becoming one, or with neither."""
        run = self.runs.get(message.partition)
        if run is None:
            run = self.runs[message.partition] = Run(message.offset, message.offset)
        run.last = message.offset
        size = len(message.value or b"")
        # The length keeps neighbours apart: 'ab','c' and 'a','bc' are different batches.
        run.digest.update(_PREFIX.pack(size, message.timestamp_ms) + (message.value or b""))
        run.count += 1
        run.size += size
        self.size += size
        self.count += 1
        if row is not None:
            run.rows.append(row)
        elif error is not None:
            run.rejected.append(Rejected(message, error))

    def drop(self, partition: int) -> None:
        """Forget a partition, which somebody else reads now."""
        run = self.runs.pop(partition, None)
        if run is not None:
            self.count -= run.count
            self.size -= run.size

    def rows(self) -> list[Row]:
        """All rows, partition by partition."""
        return [row for _, run in sorted(self.runs.items()) for row in run.rows]

    def rejected(self) -> list[Rejected]:
        return [one for _, run in sorted(self.runs.items()) for one in run.rejected]

    def positions(self) -> dict[int, int]:
        """Next offset to read, by partition."""
        return {partition: run.last + 1 for partition, run in self.runs.items()}

    def token(self, topic: str) -> str:
        """Deduplication token: a pure function of table, topic, and each partition's offsets, bytes and Kafka timestamps.

        Bytes and timestamps are in it because a server drops an insert whose token it knows, whatever the rows: after a
        topic was deleted and created anew, offsets alone would name other records.
        """
        parts = [self.table, topic]
        parts += [f"{p}:{run.first}-{run.last}:{run.digest.hexdigest()}" for p, run in sorted(self.runs.items())]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()
