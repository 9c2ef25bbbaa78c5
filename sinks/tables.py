"""What goes into which table: from a Kafka record to the values of a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from sinks.native import Column, Fixed, repeated
from sinks.reader import Reader
from steersman import contracts
from steersman.arms import ArmSpace
from steersman.codec import MAX_BYTES, Codec, SchemaIds
from steersman.dead_letter import read_failure
from steersman.errors import InvalidRecord, SnapshotError
from steersman.snapshot import PolicySnapshot
from steersman.squares import SQUARES
from steersman.topics import Topics

Row = dict[str, Any]

_FIRST_US = 946_684_800_000_000  # 2000-01-01: outside these the month partitions would multiply without bound
_LAST_US = 4_102_444_800_000_000  # 2100-01-01
_SCALARS = {
    "string": "String",
    "enum": "String",
    "long": "Int64",
    "int": "Int32",
    "double": "Float64",
    "float": "Float32",
    "boolean": "Bool",
}
_MICROS = "DateTime64(6, 'UTC')"
KEPT_EVERY_US = 60_000_000
"""A policy's record is kept once in this time, and after each change in `_WORTH_KEEPING`; unit: microseconds."""
MAX_ACT_BYTES = 16 << 20
"""Largest record of the control topic; unit: bytes."""
_WORTH_KEEPING = ("epoch", "stage", "canary_share", "revision", "acts")
_NOT_STORED = "TICK"
"""Kind of the events that only carry a time."""
_KAFKA = (
    ("kafka_topic", "String"), ("kafka_partition", "Int32"), ("kafka_offset", "Int64"),
    ("kafka_timestamp", "DateTime64(3, 'UTC')"),
)  # fmt: skip


class Message(NamedTuple):
    """A Kafka record as the sink needs it; timestamp in milliseconds since 1970 UTC, -1 for none."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp_ms: int = -1


@dataclass(frozen=True)
class Encoding:
    """How encoded records of one contract are read into columns, and how those are treated that cannot be.

    Attributes
    ----------
    codec
        Of the contract.
    reader
        Reads the records of the contract's current version.
    record
        Decodes a message, None when it is not stored. Raises DecodeError or InvalidRecord.
    again
        Encodes such a record under the current version, for which it has room: one of an older version that just fits
        in a value may be larger then.
    """

    codec: Codec
    reader: Reader
    record: Callable[[Message], dict[str, Any] | None]
    again: Codec


@dataclass(frozen=True)
class Table:
    """A table and how its rows are made.

    Attributes
    ----------
    name
        Name of the table.
    topic
        Topic that it holds.
    columns
        Names and ClickHouse types of the columns of an insert. The types are the plain ones: the server wraps them
        into LowCardinality itself.
    row
        Makes the row of a message, None when the record is not stored. Raises DecodeError or InvalidRecord.
    encoding
        How records become columns without becoming rows; None where each has to be looked at.
    one_row_each
        No two records of the topic are ever one row, so an insert need not look for such.
    """

    name: str
    topic: str
    columns: tuple[tuple[str, str], ...]
    row: Callable[[Message], Row | None]
    encoding: Encoding | None = None
    one_row_each: bool = False

    def by_column(self, rows: Sequence[Row]) -> list[list[Any]]:
        """Turn rows into columns, in the order of `columns`; text that is missing becomes ''."""
        return [
            ["" if (v := row[name]) is None else v for row in rows] if kind == "String" else [row[name] for row in rows]
            for name, kind in self.columns
        ]


def tables(topics: Topics, registry: SchemaIds | None = None) -> list[Table]:
    """Build the tables of a platform.

    Parameters
    ----------
    topics
        Names of the topics.
    registry
        Schema registry, None for none.
    """
    return [
        # Its key has the record's offset. Looking for rows of one key costs the server more than all else of an insert.
        replace(_plain("trace_events", topics.trace, "trace_event", registry), one_row_each=True),
        _plain("rewards", topics.reward, "reward", registry),
        _plain("rollups", topics.rollup, "rollup", registry),
        _plain("alerts", topics.alert, "alert", registry),
        # Records whose Kafka timestamp is none are counted in the minute 0.
        _plain("ledger", topics.audit, "ledger", registry, timeless=True),
        Table("policies", topics.policy, _POLICY_COLUMNS + _KAFKA, _policy_rows(registry)),
        Table("policy_acts", topics.control, _ACT_COLUMNS + _KAFKA, _act_rows(registry)),
        Table("dead_letters", topics.dead_letter, _DEAD_COLUMNS + _KAFKA, _dead_letter),
    ]


def column_type(node: Any) -> str:
    """ClickHouse type of an Avro type; nullable text is plain text, '' for null."""
    if isinstance(node, list):
        inner = column_type(next(branch for branch in node if branch != "null"))
        return inner if inner == "String" else f"Nullable({inner})"
    if isinstance(node, Mapping):
        if node.get("logicalType") == "timestamp-micros":
            return _MICROS
        if node["type"] == "array":
            return f"Array({column_type(node['items'])})"
        return column_type(node["type"])
    return _SCALARS[node]


def _plain(name: str, topic: str, contract: str, registry: SchemaIds | None, *, timeless: bool = False) -> Table:
    """Build the table that has a column for each field of a contract; `timeless`: a time may be 0, for unknown."""
    columns = tuple((f["name"], column_type(f["type"])) for f in contracts.schema(contract)["fields"])
    times = [n for n, kind in columns if kind == _MICROS]
    codec = Codec(contract, registry=registry)
    reader = Reader(
        contracts.schema(contract), times=(_FIRST_US, _LAST_US), timeless=timeless, not_stored={"kind": _NOT_STORED}
    )

    def decode(message: Message) -> dict[str, Any] | None:
        record = codec.decode(message.value, message.headers)
        if record.get("kind") == _NOT_STORED:
            return None
        for column in times:
            if record[column] or not timeless:
                _check_time(column, record[column])
        return record

    def row(message: Message) -> Row | None:
        record = decode(message)
        return None if record is None else _stamp(record, message)

    return Table(
        name, topic, columns + _KAFKA, row, Encoding(codec, reader, decode, Codec(contract, max_bytes=2 * MAX_BYTES))
    )


def _check_time(column: str, value: int) -> None:
    if not _FIRST_US <= value < _LAST_US:
        raise InvalidRecord(
            "time_out_of_range", f"{column} = {value} is not in microseconds between the years 2000 and 2100"
        )


def _stamp(row: Row, message: Message) -> Row:
    row["kafka_topic"] = message.topic
    row["kafka_partition"] = message.partition
    row["kafka_offset"] = message.offset
    # Never a reason to refuse a record: the broker or whoever produced it set the clock.
    row["kafka_timestamp"] = _known_micros(message.timestamp_ms * 1000) // 1000
    return row


def stamps(messages: Sequence[Message]) -> list[Column]:
    """Columns of where messages come from, as `_stamp` has them; messages of one topic, at least one."""
    rows = len(messages)
    topics, partitions, offsets, *_, times = zip(*messages, strict=True)
    millis = np.array(times, np.int64)
    known = (millis >= _FIRST_US // 1000) & (millis < _LAST_US // 1000)
    return [
        repeated(topics[0], rows),
        Fixed(np.array(partitions, np.int32)),
        Fixed(np.array(offsets, np.int64)),
        Fixed(np.where(known, millis, 0)),
    ]


def _known_micros(micros: int) -> int:
    """A time within the years that are stored, 0 (1970) for any other: all of those in one month's partition."""
    return micros if _FIRST_US <= micros < _LAST_US else 0


_POLICY_COLUMNS = (
    ("tenant", "String"), ("policy", "String"), ("epoch", "Int64"), ("version", "Int64"), ("stage", "String"),
    ("canary_share", "Float64"), ("arms", "Array(String)"), ("baseline", "String"), ("learner", "String"),
    ("exploration", "String"), ("exploration_scale", "Float64"), ("floor", "Float64"), ("objective", "String"),
    ("multipliers", "String"), ("squares", "String"), ("reward_spec", "String"), ("applied_n", "Int64"), ("applied_hash", "Int64"),
    ("applied_sources", "String"), ("created_at", _MICROS), ("not_after", f"Nullable({_MICROS})"), ("signed", "Bool"),
    ("tensors", "Array(String)"), ("record_bytes", "Int64"), ("record_sha256", "String"), ("acts", "Int64"), ("pinned", "String"),
    ("record", "String"),
)  # fmt: skip
_COPIED = (
    "tenant", "policy", "epoch", "version", "stage", "canary_share", "baseline", "learner", "exploration",
    "exploration_scale", "floor", "reward_spec", "applied_n", "applied_hash", "created_at", "not_after", "acts", "pinned",
)  # fmt: skip


def _policy_rows(registry: SchemaIds | None) -> Callable[[Message], Row | None]:
    codec = Codec("policy_snapshot", registry=registry)
    kept: dict[str, tuple[object, ...]] = {}  # of the last record kept, what makes the next one worth keeping

    def row(message: Message) -> Row | None:
        if message.value is None:
            return None  # the policy was retired; its history stays
        record = codec.decode(message.value, message.headers)
        for column in ("created_at", "not_after"):
            if record[column] is not None:
                _check_time(column, record[column])
        made = {name: record[name] for name in _COPIED}
        made["arms"] = _arm_labels(record)
        for name in ("objective", "multipliers", "applied_sources"):
            value = record[name] + record["tenant_multipliers"] if name == "multipliers" else record[name]
            made[name] = json.dumps(value, separators=(",", ":"))
        made["squares"] = json.dumps(_squares(record), separators=(",", ":"))
        made["signed"] = bool(record["signature"])
        made["tensors"] = [tensor["name"] for tensor in record["tensors"]]
        made["record_bytes"] = len(message.value)
        made["record_sha256"] = hashlib.sha256(message.value).hexdigest()
        changes = (record["created_at"] // KEPT_EVERY_US, *(record[name] for name in _WORTH_KEEPING))
        key = f"{record['tenant']}/{record['policy']}"
        made["record"] = b"" if kept.get(key) == changes else codec.as_single_object(message.value, message.headers)
        kept[key] = changes
        return _stamp(made, message)

    return row


def _squares(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a snapshot charges for being off its steady ceilings."""
    if all(tensor["name"] != SQUARES for tensor in record["tensors"]):
        return []
    try:
        return [near._asdict() for near in PolicySnapshot.from_record(record).squares]
    except SnapshotError as e:
        raise InvalidRecord("bad_snapshot", str(e)) from e


_ACT_COLUMNS = (
    ("act_id", "String"), ("ts", _MICROS), ("tenant", "String"), ("policy", "String"), ("act", "String"), ("who", "String"),
    ("why", "String"), ("expected", "String"), ("in_epoch", "Int64"), ("epoch", "Int64"), ("version", "Int64"),
    ("outcome", "String"), ("reason", "String"), ("at_epoch", "Int64"), ("at_version", "Int64"), ("standing", "String"),
)  # fmt: skip


def _act_rows(registry: SchemaIds | None) -> Callable[[Message], Row | None]:
    """Make rows of acts, which leave out the snapshot that an act may hold: the policies have it."""
    codec = Codec("policy_act", registry=registry, max_bytes=MAX_ACT_BYTES)

    def row(message: Message) -> Row | None:
        record = codec.decode(message.value, message.headers)
        _check_time("ts", record["ts"])
        return _stamp({name: record[name] for name, _ in _ACT_COLUMNS}, message)

    return row


def _arm_labels(record: Mapping[str, Any]) -> list[str]:
    try:
        knobs = {knob["name"]: [json.loads(level) for level in knob["levels"]] for knob in record["knobs"]}
        return list(ArmSpace(knobs, [json.loads(ban) for ban in record["forbidden"]]).labels)
    except (ValueError, TypeError, AttributeError, KeyError) as e:
        raise InvalidRecord("bad_arms", f"{record['tenant']}/{record['policy']}: {e}") from e


_DEAD_COLUMNS = (
    ("tenant", "String"), ("ts", _MICROS), ("stage", "String"), ("reason", "String"), ("exception_class", "String"),
    ("message", "String"), ("stacktrace", "String"), ("error_topic", "String"), ("error_partition", "Int32"),
    ("error_offset", "Int64"), ("key", "String"), ("value", "String"), ("tombstone", "Bool"), ("headers", "Map(String, String)"),
)  # fmt: skip


def _dead_letter(message: Message) -> Row:
    failure = read_failure(message.headers)
    known = bool(failure.topic) and failure.partition >= 0 and failure.offset >= 0
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in message.headers}
    return _stamp(
        {
            "tenant": headers.get("tenant", ""),
            # A dead letter is never refused for its time: whoever failed may have failed over just that.
            "ts": _known_micros(message.timestamp_ms * 1000),
            "stage": failure.stage,
            "reason": failure.reason,
            "exception_class": failure.exception_class,
            "message": failure.message,
            "stacktrace": failure.stacktrace,
            "error_topic": failure.topic if known else message.topic,
            "error_partition": failure.partition if known else message.partition,
            "error_offset": failure.offset if known else message.offset,
            "key": message.key or b"",
            "value": message.value or b"",
            "tombstone": message.value is None,
            "headers": headers,
        },
        message,
    )
