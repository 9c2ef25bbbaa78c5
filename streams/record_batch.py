"""A fetched run of records: what the transport hands over, and what stages take in."""

from __future__ import annotations

from dataclasses import dataclass

Header = tuple[str, bytes]


@dataclass(slots=True, eq=False)
class RecordBatch:
    """A fetched run of records of one partition, in offset order.

    Attributes
    ----------
    topic, partition
        Where the records come from.
    generation
        Generation of the consumer group in which they were fetched.
    ticket
        Their entry in the acknowledgement book.
    first, last
        Offsets of the first and the last record.
    offsets
        Offset of each record; increasing, not necessarily without gaps.
    values, keys
        Raw bytes of each record, None for a null value or key.
    headers
        Headers of each record, as (name, bytes) pairs.
    timestamps
        Kafka timestamp of each record; unit: milliseconds since 1970-01-01 UTC, -1 without one.
    """

    topic: str
    partition: int
    generation: int
    ticket: int
    first: int
    last: int
    offsets: list[int]
    values: list[bytes | None]
    keys: list[bytes | None]
    headers: list[tuple[Header, ...]]
    timestamps: list[int]

    def __len__(self) -> int:
        return len(self.offsets)
