"""From messages to what is inserted for them: columns read from encoded records, or rows decoded one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np

from sinks.batch import Rejected
from sinks.clickhouse import insert_native
from sinks.native import Column, block
from sinks.tables import Encoding, Message, Row, Table, stamps
from steersman import contracts
from steersman.codec import MAX_BYTES
from steersman.errors import DecodeError, InvalidRecord

_READ_BYTES = 4 << 20
_HEAD = 10
"""Of a value in the single-object framing; nothing else can have its body there. Unit: bytes."""


class Store(Protocol):
    """What is asked of a ClickHouse client."""

    def insert(self, table: str, data: Any, **options: Any) -> Any: ...

    def raw_insert(self, table: str, **options: Any) -> Any: ...


class Rows(Protocol):
    """Rows of a table, ready to be inserted in any pieces."""

    @property
    def count(self) -> int:
        """Rows."""

    def insert(self, store: Store, first: int, last: int, settings: dict[str, Any]) -> None:
        """Insert the rows `first` to `last`, the last excluded."""

    def message(self, row: int) -> Message:
        """The message of a row, or what is left of it."""


@dataclass(frozen=True)
class DecodedRows:
    """Rows that were made one by one."""

    table: Table
    rows: list[Row]

    @property
    def count(self) -> int:
        return len(self.rows)

    def insert(self, store: Store, first: int, last: int, settings: dict[str, Any]) -> None:
        store.insert(
            self.table.name,
            self.table.by_column(self.rows[first:last]),
            column_names=[name for name, _ in self.table.columns],
            column_type_names=[kind for _, kind in self.table.columns],
            column_oriented=True,
            settings=settings,
        )

    def message(self, row: int) -> Message:
        made = self.rows[row]
        return Message(
            made["kafka_topic"],
            made["kafka_partition"],
            made["kafka_offset"],
            None,
            repr(made).encode(),
            timestamp_ms=made["kafka_timestamp"],
        )


@dataclass(frozen=True)
class Part:
    """Some of the rows that were read by columns, and the messages that they are of."""

    messages: list[Message]
    columns: list[Column]


@dataclass(frozen=True)
class EncodedRows:
    """Rows that were read by columns; a part becomes a block of the insert.

    Columns that are empty in all parts are left out: most of a table's are for other kinds of records than those that come.
    """

    table: Table
    parts: list[Part]

    @property
    def count(self) -> int:
        return sum(len(part.messages) for part in self.parts)

    def insert(self, store: Store, first: int, last: int, settings: dict[str, Any]) -> None:
        held = [i for i in range(len(self.table.columns)) if not all(part.columns[i].empty for part in self.parts)]
        types = [self.table.columns[i] for i in held]
        blocks = []
        for part in self.parts:
            count = len(part.messages)
            if first < count and last > 0:
                blocks.append(block(types, [part.columns[i] for i in held], max(first, 0), min(last, count)))
            first, last = first - count, last - count
        insert_native(store, self.table.name, [name for name, _ in types], b"".join(blocks), settings)

    def message(self, row: int) -> Message:
        return next(islice((m for part in self.parts for m in part.messages), row, None))


def rows_of(table: Table, messages: Sequence[Message]) -> tuple[Rows, list[Rejected]]:
    """Make the rows of messages.

    Parameters
    ----------
    table
        The table.
    messages
        Of the table's topic; the rows come in the same order.

    Returns
    -------
    rows : Rows
        Of the messages that are stored.
    rejected : list of Rejected
        Those that cannot be, in the order of the messages. Any others are not meant to be stored.
    """
    if table.encoding is not None:
        return _Reading(table, table.encoding).read(messages)
    rows: list[Row] = []
    rejected: list[Rejected] = []
    for message in messages:
        try:
            row = table.row(message)
        except (DecodeError, InvalidRecord) as e:
            rejected.append(Rejected(message, e))
        else:
            if row is not None:
                rows.append(row)
    return DecodedRows(table, rows), rejected


_Framed = tuple[Message, bytes, int, bool]
"""A message, what to read for it, where the body begins in that, and whether the codec has passed it."""


class _Reading:
    """Reads messages by columns. What the reader cannot take is decoded, and encoded again if it is to be stored.

    So records of older writers, and those that are encoded in an unusual way, are in the same block as all others, in
    the order of the log, and whatever is wrong with a record, the codec says it.
    """

    def __init__(self, table: Table, encoding: Encoding):
        self._table = table
        self._encoding = encoding
        self._rejected: list[Rejected] = []

    def read(self, messages: Sequence[Message]) -> tuple[EncodedRows, list[Rejected]]:
        parts = [part for run in _runs(self._frame(messages)) if (part := self._part(run)).messages]
        if self._rejected:
            order = {id(message): i for i, message in enumerate(messages)}
            self._rejected.sort(key=lambda one: order[id(one.message)])
        return EncodedRows(self._table, parts), self._rejected

    def _part(self, framed: list[_Framed]) -> Part:
        while framed:
            columns, good = self._encoding.reader.read(
                [value for _, value, _, _ in framed],
                np.array([start for _, _, start, _ in framed], np.int64),
                np.array([checked for _, _, _, checked in framed], np.bool_),
            )
            if good.all():
                messages = [message for message, _, _, _ in framed]
                return Part(messages, columns + stamps(messages))
            framed = list(self._looked_at(framed, good.tolist()))
        return Part([], [])

    def _frame(self, messages: Sequence[Message]) -> list[_Framed]:
        framed: list[_Framed] = []
        frame, current = self._encoding.codec.frame, contracts.schema(self._encoding.codec.name)
        head: bytes | None = None  # that of the last value, where it alone said that the current contract wrote that
        for message in messages:
            value = message.value
            if (
                head is not None
                and value is not None
                and value[:_HEAD] == head
                and not message.headers
                and len(value) <= MAX_BYTES
            ):
                framed.append((message, value, _HEAD, False))
                continue
            try:
                schema, start = frame(value, message.headers)
            except DecodeError as e:
                self._rejected.append(Rejected(message, e))
                continue
            if schema is current and value is not None:
                framed.append((message, value, start, False))
                head = value[:_HEAD] if start == _HEAD and not message.headers else None
            else:
                framed += self._passed(message)
        return framed

    def _looked_at(self, framed: list[_Framed], good: list[bool]) -> Iterator[_Framed]:
        """Let the codec look at what the reader did not take."""
        for one, fine in zip(framed, good, strict=True):
            message, _, _, checked = one
            if fine:
                yield one
            elif checked:
                error = InvalidRecord("bad_value", "decoded, but not to be read by columns")
                self._rejected.append(Rejected(message, error))
            else:
                yield from self._passed(message)

    def _passed(self, message: Message) -> Iterator[_Framed]:
        """Yield a message encoded anew, if the codec passes it and it is stored."""
        try:
            record = self._encoding.record(message)
        except (DecodeError, InvalidRecord) as e:
            self._rejected.append(Rejected(message, e))
            return
        if record is not None:
            value = self._encoding.again.encode(record)
            yield message, value, self._encoding.again.frame(value)[1], True


def _runs(framed: list[_Framed]) -> Iterator[list[_Framed]]:
    """Cut what is read at once: a reader's arrays may take 30 times the bytes that it reads."""
    first = size = 0
    for i, (_, value, _, _) in enumerate(framed):
        if size >= _READ_BYTES:
            yield framed[first:i]
            first, size = i, 0
        size += len(value)
    yield framed[first:]
