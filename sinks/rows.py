"""From messages to what is inserted for them: columns read from encoded records, or rows decoded one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sinks.batch import Rejected
from sinks.clickhouse import insert_native
from sinks.native import Column, block
from sinks.tables import Encoding, Message, Row, Table, stamps
from steersman import contracts
from steersman.codec import MAX_BYTES, Codec
from steersman.errors import DecodeError, InvalidRecord


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
class EncodedRows:
    """Rows that were read by columns."""

    table: Table
    messages: list[Message]
    columns: list[Column]

    @property
    def count(self) -> int:
        return len(self.messages)

    def insert(self, store: Store, first: int, last: int, settings: dict[str, Any]) -> None:
        data = block(self.table.columns, self.columns, first, last)
        insert_native(store, self.table.name, [name for name, _ in self.table.columns], data, settings)

    def message(self, row: int) -> Message:
        return self.messages[row]


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


class _Reading:
    """Reads messages by columns. What the reader cannot take is decoded, and encoded again if it is to be stored.

    So records of older writers, and those that are encoded in an unusual way, are in the same block as all others, in
    the order of the log, and whatever is wrong with a record, the codec says it.
    """

    def __init__(self, table: Table, encoding: Encoding):
        self._table = table
        self._encoding = encoding
        self._schema = contracts.schema(encoding.codec.name)
        # A record that just fits may be larger under the current version.
        self._again = Codec(encoding.codec.name, max_bytes=2 * MAX_BYTES)
        self._messages: list[Message] = []
        self._values: list[bytes] = []
        self._starts: list[int] = []
        self._checked: list[bool] = []
        self._rejected: list[Rejected] = []

    def read(self, messages: Sequence[Message]) -> tuple[EncodedRows, list[Rejected]]:
        for message in messages:
            try:
                schema, start = self._encoding.codec.frame(message.value, message.headers)
            except DecodeError as e:
                self._rejected.append(Rejected(message, e))
                continue
            if schema is self._schema:
                self._keep(message, message.value, start, False)
            else:
                self._check(message)
        columns = self._columns()
        order = {id(message): i for i, message in enumerate(messages)} if self._rejected else {}
        self._rejected.sort(key=lambda one: order[id(one.message)])
        return EncodedRows(self._table, self._messages, columns), self._rejected

    def _columns(self) -> list[Column]:
        while self._values:
            columns, good = self._encoding.reader.read(
                self._values, np.array(self._starts, np.int64), np.array(self._checked, np.bool_)
            )
            if good.all():
                return columns + stamps(self._messages)
            before = list(zip(self._messages, self._values, self._starts, self._checked, good.tolist(), strict=True))
            self._messages, self._values, self._starts, self._checked = [], [], [], []
            for message, value, start, checked, fine in before:
                if fine:
                    self._keep(message, value, start, checked)
                elif checked:
                    unread = InvalidRecord("bad_value", "decoded, but not to be read by columns")
                    self._rejected.append(Rejected(message, unread))
                else:
                    self._check(message)
        return []

    def _keep(self, message: Message, value: bytes | None, start: int, checked: bool) -> None:
        self._messages.append(message)
        self._values.append(value or b"")
        self._starts.append(start)
        self._checked.append(checked)

    def _check(self, message: Message) -> None:
        try:
            record = self._encoding.record(message)
        except (DecodeError, InvalidRecord) as e:
            self._rejected.append(Rejected(message, e))
            return
        if record is not None:
            value = self._again.encode(record)
            self._keep(message, value, self._again.frame(value)[1], True)
