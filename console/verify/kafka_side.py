"""The log's own account: trace events, rewards and policies, counted afresh from the topics."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from console.verify.log_reader import LogReader, stamp_of
from console.verify.policies import PolicyRecord, Version, content_of
from console.verify.records import EVENT, TICK, UNREADABLE, RewardRow, Row
from steersman.codec import Codec, SchemaIds
from steersman.errors import DecodeError
from steersman.headers import RULES_HEADER, headers_of
from streams.topics import MAX_STATE_BYTES
from streams.watermark import PartitionClock

MINUTE_MS: Final = 60_000


@dataclass
class _Columns:
    """Rows of one partition, by column."""

    offsets: array[int] = field(default_factory=lambda: array("q"))
    minutes: array[int] = field(default_factory=lambda: array("q"))
    amounts: array[int] = field(default_factory=lambda: array("q"))
    kinds: array[int] = field(default_factory=lambda: array("b"))
    tenants: array[int] = field(default_factory=lambda: array("i"))
    ids: list[str] = field(default_factory=list)
    clock: PartitionClock = field(default_factory=lambda: PartitionClock(0))


class TraceLog:
    """The trace topic as far as it has been read; keeps about 130 bytes a record.

    Parameters
    ----------
    reader
        Reader of the topic.
    registry
        Schema registry, None for none.

    Attributes
    ----------
    events
        Records that are not ticks.
    """

    def __init__(self, reader: LogReader, registry: SchemaIds | None = None) -> None:
        self.reader = reader
        self.events = 0
        self._codec = Codec("trace_event", registry=registry)
        self._columns = {p: _Columns() for p in reader.next}
        self._tenants: dict[str, int] = {}
        self._names: list[str] = []

    def extend(self) -> int:
        """Read on to the end; returns how many records that are not ticks came."""
        before = self.events
        for message in self.reader.read():
            columns = self._columns[message.partition() or 0]
            stamp = stamp_of(message)
            identity, tenant, amount, kind = "", "", 0, UNREADABLE
            try:
                event = self._codec.decode(message.value(), headers_of(message))
            except DecodeError:
                pass
            else:
                identity, tenant, amount = event["event_id"], event["tenant"], event["cost_micro_usd"] or 0
                kind = TICK if event["kind"] == "TICK" else EVENT
                # At most the record's time: an event that the workers refuse must not put the clock ahead of theirs.
                columns.clock.advance(min(columns.clock.event_time(event["ts"], stamp * 1000), stamp * 1000))
            self.events += kind != TICK
            columns.offsets.append(message.offset() or 0)
            columns.minutes.append(stamp // MINUTE_MS)
            columns.amounts.append(amount)
            columns.kinds.append(kind)
            columns.tenants.append(self._tenant(tenant))
            columns.ids.append(identity)
        return self.events - before

    def rows(self) -> Iterator[Row]:
        """All rows, ticks included, partition by partition."""
        for partition, columns in self._columns.items():
            for index in range(len(columns.offsets)):
                yield self._row(partition, columns, index)

    def at(self, partition: int, offset: int) -> Row | None:
        """The record at a place, None when none was read there."""
        columns = self._columns.get(partition)
        if columns is None:
            return None
        index = bisect_left(columns.offsets, offset)
        if index == len(columns.offsets) or columns.offsets[index] != offset:
            return None
        return self._row(partition, columns, index)

    def first_minutes(self) -> dict[int, int]:
        """Minute of the first record of each partition that has one."""
        return {p: c.minutes[0] for p, c in self._columns.items() if c.minutes}

    def earliest(self) -> int:
        """First minute of which there is a record, 0 without any."""
        return min((min(c.minutes) for c in self._columns.values() if c.minutes), default=0)

    def clocks(self) -> dict[int, int]:
        """What the event clock of each partition shows at least; unit: microseconds since 1970-01-01 UTC."""
        return {p: c.clock.now_us for p, c in self._columns.items()}

    def _row(self, partition: int, columns: _Columns, index: int) -> Row:
        return Row(
            columns.kinds[index],
            columns.ids[index],
            self._names[columns.tenants[index]],
            columns.minutes[index],
            columns.amounts[index],
            partition,
            columns.offsets[index],
        )

    def _tenant(self, name: str) -> int:
        number = self._tenants.get(name)
        if number is None:
            number = self._tenants[name] = len(self._names)
            self._names.append(name)
        return number


class RewardLog:
    """The reward topic as far as it has been read.

    Parameters
    ----------
    reader
        Reader of the topic.
    registry
        Schema registry, None for none.
    """

    def __init__(self, reader: LogReader, registry: SchemaIds | None = None) -> None:
        self.reader = reader
        self.rows: list[RewardRow] = []
        self._codec = Codec("reward", registry=registry)
        self._highest: dict[tuple[int, str, str, int], tuple[int, int]] = {}

    def extend(self) -> None:
        """Read on to the end."""
        for message in self.reader.read():
            partition, offset = message.partition() or 0, message.offset() or 0
            minute = stamp_of(message) // MINUTE_MS
            try:
                reward = self._codec.decode(message.value(), headers_of(message))
            except DecodeError:
                self.rows.append(RewardRow(partition, offset, minute, readable=False, first=True))
                continue
            source = reward["source_partition"]
            lane = (partition, reward["tenant"], reward["policy"], source)
            at = (reward["source_offset"], reward["seq"])
            first = source < 0 or at > self._highest.get(lane, (-1, -1))
            if first:
                self._highest[lane] = at
            self.rows.append(
                RewardRow(
                    partition,
                    offset,
                    minute,
                    True,
                    first,
                    reward["decision_id"],
                    reward["tenant"],
                    reward["policy"],
                    reward["cost_micro_usd"],
                    source,
                    reward["source_offset"],
                )
            )

    def first_minutes(self) -> dict[int, int]:
        """Minute of the first record of each partition that has one."""
        found: dict[int, int] = {}
        for row in self.rows:
            found.setdefault(row.partition, row.minute)
        return found


class PolicyLog:
    """The policy topic as far as it has been read.

    Parameters
    ----------
    reader
        Reader of the topic.
    registry
        Schema registry, None for none.

    Attributes
    ----------
    earliest
        First minute of which there is a record, 0 without any.
    """

    def __init__(self, reader: LogReader, registry: SchemaIds | None = None) -> None:
        self.reader = reader
        self.records: list[PolicyRecord] = []
        self.earliest = 0
        self._codec = Codec("policy_snapshot", registry=registry, max_bytes=MAX_STATE_BYTES)

    def extend(self) -> None:
        """Read on to the end. Tombstones and what nobody can read are passed over, as agents do."""
        for message in self.reader.read():
            value = message.value()
            minute = stamp_of(message) // MINUTE_MS
            self.earliest = min(self.earliest or minute, minute)
            if not value:
                continue
            headers = headers_of(message)
            try:
                record = self._codec.decode(value, headers)
            except DecodeError:
                continue
            rules = dict(headers).get(RULES_HEADER) or b""
            self.records.append(
                PolicyRecord(
                    f"{record['tenant']}/{record['policy']}",
                    Version(record["epoch"], record["version"], hashlib.sha256(value).hexdigest()),
                    content_of(record),
                    f"{record['stage']} {record['canary_share']} {record['acts']} {record['revision']} {rules.hex()}",
                )
            )
