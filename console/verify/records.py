"""Records as the equations need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

EVENT: Final = 0
TICK: Final = 1
UNREADABLE: Final = 2

Place = tuple[int, int]
"""Partition and offset."""


class Row(NamedTuple):
    """A record of the trace topic."""

    kind: int
    id: str
    tenant: str
    minute: int
    amount: int
    partition: int
    offset: int

    @property
    def place(self) -> str:
        """Partition and offset, as the ledger writes the id of what cannot be read."""
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class RewardRow:
    """A record of the reward topic.

    Attributes
    ----------
    first
        Whether its provenance is new: (source_offset, seq) above all seen of its reward partition, policy and source
        partition. What is not first is a repeat.
    """

    partition: int
    offset: int
    minute: int
    readable: bool
    first: bool
    id: str = ""
    tenant: str = ""
    policy: str = ""
    cost: int = 0
    source_partition: int = -1
    source_offset: int = -1

    @property
    def place(self) -> str:
        """Partition and offset."""
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True)
class StoredReward:
    """A row of the rewards table, copies of a reward merged."""

    id: str
    tenant: str
    policy: str
    cost: int
    source_partition: int
    source_offset: int
    place: str


class Letter(NamedTuple):
    """A dead letter: the record that failed, in which stage, and the minute of its Kafka timestamp."""

    place: Place
    stage: str
    minute: int
