"""A Kafka log in memory: partitions, a clock, and compaction that really removes things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.streams.trace_events import T0

Place = tuple[str, int]
"""Topic and partition number."""


@dataclass
class SimClock:
    """The one clock of a simulated world; `steersman.clock.Clock`."""

    ms: int = T0 // 1000

    def now_us(self) -> int:
        return self.ms * 1000

    def monotonic_us(self) -> int:
        return self.ms * 1000

    def monotonic_s(self) -> float:
        return self.ms / 1000


@dataclass(slots=True)
class Record:
    """A record of the log."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class SimLog:
    """All partitions of all topics."""

    clock: SimClock
    _records: dict[Place, list[Record]] = field(default_factory=dict)
    _ends: dict[Place, int] = field(default_factory=dict)

    def append(
        self,
        place: Place,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
    ) -> int:
        """Append a record and return its offset."""
        offset = self._ends.get(place, 0)
        self._ends[place] = offset + 1
        stamp = self.clock.ms if timestamp_ms is None else timestamp_ms
        self.records(place).append(Record(offset, stamp, key, value, tuple(headers)))
        return offset

    def skip(self, place: Place, offsets: int) -> None:
        """Leave offsets without records, as the markers of other people's transactions do."""
        self._ends[place] = self._ends.get(place, 0) + offsets

    def records(self, place: Place) -> list[Record]:
        """All records that a partition holds."""
        return self._records.setdefault(place, [])

    def read(self, place: Place, offset: int, count: int) -> list[Record]:
        """At most so many records from an offset on."""
        return [record for record in self.records(place) if record.offset >= offset][:count]

    def end(self, place: Place) -> int:
        """Offset that the next record gets."""
        return self._ends.get(place, 0)

    def cleanable(self, place: Place, lag_ms: int) -> int:
        """Count the records before the first one that is younger than the compaction lag, where Kafka stops cleaning."""
        records = self.records(place)
        before = self.clock.ms - lag_ms
        return next((i for i, record in enumerate(records) if record.timestamp_ms > before), len(records))

    def compact(self, place: Place, clean: int, *, drop_tombstones: bool) -> None:
        """Keep of the first so many records the last of each key."""
        records = self.records(place)
        last = {record.key: record.offset for record in records[:clean]}
        self._records[place] = [
            record
            for record in records[:clean]
            if record.offset == last[record.key] and not (drop_tombstones and record.value is None)
        ] + records[clean:]
