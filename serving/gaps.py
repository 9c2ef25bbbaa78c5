"""Records that a fetch passed over: asked for again before anybody takes them for gone. Pure.

Offsets of a topic that is neither compacted nor written to in transactions have no gaps, but for records that retention has
deleted. Apache Kafka shows records in their order; the embedded broker was seen to show some a moment before those in front of
them, which whoever reads on would never see.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, TypeVar

TRIES = 3
"""How often records are asked for again before they count as gone."""

Partition = TypeVar("Partition", bound=Hashable)


class Gaps(Generic[Partition]):
    """What comes next of each partition, and how often it was asked for."""

    def __init__(self) -> None:
        self._next: dict[Partition, int] = {}
        self._tries: dict[Partition, tuple[int, int]] = {}

    def take(self, partition: Partition, offsets: Sequence[int]) -> tuple[int, int | None]:
        """Return how many records of a fetch to take, and the offset from which to read again, None to read on.

        Parameters
        ----------
        partition
            Where they come from.
        offsets
            Of the records; increasing, and at least one.
        """
        due = self._next.get(partition, offsets[0])
        taken = len(offsets)
        if offsets[0] > due or offsets[-1] - offsets[0] >= taken:
            for at, offset in enumerate(offsets):
                if offset > due and self._again(partition, due):
                    self._next[partition] = due
                    return at, due
                due = offset + 1
        self._next[partition] = max(due, offsets[-1] + 1)
        return taken, None

    def seek(self, partition: Partition, offset: int) -> None:
        """Be told that reading goes on from an offset."""
        self._next[partition] = offset

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Drop partitions that somebody else reads now."""
        for partition in partitions:
            self._next.pop(partition, None)
            self._tries.pop(partition, None)

    def _again(self, partition: Partition, due: int) -> bool:
        offset, tries = self._tries.get(partition, (due, 0))
        tries = tries if offset == due else 0
        if tries == TRIES:
            return False
        self._tries[partition] = (due, tries + 1)
        return True
