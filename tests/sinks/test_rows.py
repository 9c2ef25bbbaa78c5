"""Rows read by columns are the rows that decoding gives, to the byte, and so are the dead letters."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace
from typing import Any

import fastavro
import pytest
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.insert import InsertContext

from benchmarks.avro_container import zigzag
from sinks.batch import Rejected
from sinks.reader import Reader
from sinks.rows import DecodedRows, EncodedRows, rows_of
from sinks.tables import Message, Table, tables
from steersman import contracts
from steersman.codec import MAX_BYTES, SCHEMA_ID_HEADER, Codec, plain
from steersman.record_checks import MAX_ITEMS, MAX_TEXT
from steersman.topics import Topics
from tests.faults.poison import Poison
from tests.sinks.hostile import any_record, mutated
from tests.sinks.records import codec, record

ENCODED = {table.name: table for table in tables(Topics()) if table.encoding is not None}
EVENTS = ENCODED["trace_events"]


def messages(table: Table, values: Sequence[bytes], **more: Any) -> list[Message]:
    return [Message(table.topic, i % 3, i, b"k", v, timestamp_ms=1_790_000_000_000 + i, **more) for i, v in enumerate(values)]  # fmt: skip


def reasons(rejected: list[Rejected]) -> list[tuple[int, str]]:
    """Offset and text of each error."""
    return [(r.message.offset, f"{type(r.error)} {r.error}") for r in rejected]


def both(table: Table, log: Sequence[Message]) -> tuple[DecodedRows, EncodedRows, list[Rejected]]:
    """Rows made either way, after comparing them."""
    decoded, expected = rows_of(replace(table, encoding=None), log)
    encoded, rejected = rows_of(table, log)
    assert isinstance(decoded, DecodedRows)
    assert isinstance(encoded, EncodedRows)
    assert reasons(rejected) == reasons(expected)
    assert encoded.count == decoded.count
    rows = iter(decoded.rows)
    for part in encoded.parts:
        made = list(islice(rows, len(part.messages)))
        for first in (0, len(made) // 2):
            columns = table.by_column(made[first:])
            for (name, kind), column, data in zip(table.columns, part.columns, columns, strict=True):
                assert b"".join(column.pieces(first, len(made))) == native(kind, data), name
    return decoded, encoded, rejected


def offsets(rows: EncodedRows) -> list[int]:
    return [message.offset for part in rows.parts for message in part.messages]


def native(kind: str, data: list[Any]) -> bytes:
    """A column as clickhouse-connect sends it."""
    out, column = bytearray(), get_from_name(kind)
    column.write_column_data(data, out, InsertContext("t", ["c"], [column], []))
    return bytes(out)


def test_the_tables_that_are_read_by_columns():
    assert list(ENCODED) == ["trace_events", "rewards", "rollups", "alerts", "ledger"]


@pytest.mark.parametrize("name", ENCODED)
def test_any_records_and_any_bytes(name: str):
    rng, table = random.Random(name), ENCODED[name]
    contract = codec(table.encoding.codec.name)  # type: ignore[union-attr]
    stored = rejected = 0
    for _ in range(10):
        values = [contract.encode(any_record(rng, contract.name)) for _ in range(150)]
        values = [mutated(rng, v) if rng.random() < 0.25 else v for v in values]
        decoded, _, refused = both(table, messages(table, values))
        stored, rejected = stored + decoded.count, rejected + len(refused)
    assert stored > 1000
    assert rejected > 150


def test_poison():
    rng = random.Random(5)
    poison = Poison(rng, codec("trace_event"))
    event = any_record(rng, "trace_event", kind="FEEDBACK", ts=1_790_000_000_000_000)
    good = codec("trace_event").encode(event)
    values = [make() for _ in range(150) for make in (
        lambda: good, lambda: poison.rubbish(good), lambda: poison.bomb(event), lambda: poison.not_finite(event),
    )]  # fmt: skip
    decoded, _, rejected = both(EVENTS, messages(EVENTS, values))
    assert decoded.count >= 150
    assert len(rejected) > 400


def test_every_byte_of_a_record_changed():
    """Whatever stands at a place of a record: it is what the codec says, and its neighbours are what they were."""
    rng = random.Random(6)
    event = record("trace_event", kind="DECISION", mode="LIVE", features=[0.5, 1.0], eligible=[1, -300], explored=True, propensity=0.5, cost_micro_usd=70, comment="ü")  # fmt: skip
    good = codec("trace_event").encode(event)
    values = []
    for at in range(10, len(good)):
        for other in {0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, rng.randrange(256)}:
            values += [good[:at] + bytes([other]) + good[at + 1 :], good]
    decoded, _, _ = both(EVENTS, messages(EVENTS, values))
    assert decoded.count > len(values) // 2


def test_ticks_are_skipped_and_times_out_of_range_refused():
    fields = [{"kind": "END"}, {"kind": "TICK"}, {"kind": "TICK", "ts": 1}, {"kind": "END", "ts": 1}, {"kind": "END"}]
    log = messages(EVENTS, [codec("trace_event").encode(record("trace_event", **f)) for f in fields])
    _, encoded, rejected = both(EVENTS, log)
    assert offsets(encoded) == [0, 4]
    assert [(r.message.offset, r.error.reason) for r in rejected] == [(3, "time_out_of_range")]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "items", "reason"),
    [("é" * MAX_TEXT, MAX_ITEMS, ""), ("e" * (MAX_TEXT + 1), 1, "too_long"), ("", MAX_ITEMS + 1, "too_long")],
)
def test_long_texts_and_arrays(text: str, items: int, reason: str):
    made = record("trace_event", comment=text, eligible=[70_000] * items, features=[0.5] * items)
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(plain(contracts.schema("trace_event"))), made)
    value = codec("trace_event").encode(record("trace_event"))[:10] + buffer.getvalue()
    _, encoded, rejected = both(EVENTS, messages(EVENTS, [value]))
    assert (encoded.count, [r.error.reason for r in rejected]) == ((0, [reason]) if reason else (1, []))  # type: ignore[attr-defined]


def test_arrays_in_blocks():
    """As a blocking encoder writes them: a negative count, then the size; in several blocks."""
    good = codec("trace_event").encode(record("trace_event", features=[0.5, 1.5], comment="c"))
    block = bytes.fromhex("040000003f0000c03f00")
    assert good.count(block) == 1
    several = bytes.fromhex("01080000003f020000c03f00")
    decoded, _, _ = both(EVENTS, messages(EVENTS, [good, good.replace(block, several), good]))
    assert [row["features"] for row in decoded.rows] == [[0.5, 1.5]] * 3


@pytest.mark.parametrize("number", [1 << 31, -(1 << 31) - 1, (1 << 63) - 1])
def test_ints_of_more_than_32_bits(number: int):
    """An encoder writes them as it writes longs."""
    event = record("trace_event", eligible=[3_000])
    reward = record("reward", failures=3_000)
    for table, made in (("trace_events", event), ("rewards", reward)):
        good = codec(made_by(table)).encode(made)
        assert good.count(zigzag(3_000)) == 1
        _, encoded, rejected = both(ENCODED[table], messages(ENCODED[table], [good, good.replace(zigzag(3_000), zigzag(number))]))  # fmt: skip
        assert (encoded.count, [r.error.reason for r in rejected]) == (1, ["corrupt"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("last", [*range(4), 0x7F])
@pytest.mark.parametrize("table", ["rollups", "ledger"])
def test_longs_of_more_than_64_bits(table: str, last: int):
    """The tenth byte has room for one bit; what a decoder makes of the others is its own affair."""
    fields = {"rollups": {"histogram_index": [1, 2], "histogram_count": [5, 1 << 62]}, "ledger": {"id_sum": 1 << 62}}
    good = codec(made_by(table)).encode(record(made_by(table), **fields[table]))
    assert good.count(zigzag(1 << 62)) == 1
    odd = zigzag(1 << 62)[:-1] + bytes([last])
    both(ENCODED[table], messages(ENCODED[table], [good, good.replace(zigzag(1 << 62), odd), good]))


def made_by(table: str) -> str:
    """Contract of a table."""
    encoding = ENCODED[table].encoding
    assert encoding is not None
    return encoding.codec.name


class _Registry:
    """Knows an older version, without the last fields, under the id 7, and the current one under the id 8."""

    def __init__(self, contract: str):
        current = json.loads(json.dumps(contracts.schema(contract)))
        optional = [f for f in current["fields"] if "default" in f]
        old = {**current, "fields": [f for f in current["fields"] if f not in optional[-3:]]}
        self.schemas = {7: old, 8: current}

    def id_for(self, name: str) -> int | None:
        return None

    def schema_by_id(self, name: str, schema_id: int) -> Mapping[str, Any] | None:
        return self.schemas.get(schema_id)

    def schema_by_guid(self, name: str, guid: str) -> Mapping[str, Any] | None:
        return self.schemas[8] if guid.endswith("8") else None


@pytest.mark.parametrize("name", ENCODED)
def test_other_writers_and_framings(name: str):
    rng = random.Random(name)
    contract = ENCODED[name].encoding.codec.name  # type: ignore[union-attr]
    registry = _Registry(contract)
    table = next(t for t in tables(Topics(), registry) if t.name == name)
    log = []
    for i in range(200):
        made = any_record(rng, contract)
        value = codec(contract).encode(made)
        headers: list[tuple[str, bytes | None]] = [("traceparent", b"00-1")]
        match i % 4:
            case 1:
                old = registry.schemas[7]
                buffer = io.BytesIO()
                fields = {f["name"]: made[f["name"]] for f in old["fields"]}
                fastavro.schemaless_writer(buffer, fastavro.parse_schema(plain(old)), fields)
                value = b"\0\0\0\0\7" + buffer.getvalue()
            case 2:
                value = b"\0\0\0\0\x08" + value[10:]
            case 3:
                value, headers = value[10:], [(SCHEMA_ID_HEADER, b"\1" + bytes(15) + b"\x08")]
        log.append(Message(table.topic, 0, i, None, value, headers, i))
    decoded, encoded, _ = both(table, log)
    assert decoded.count > 100
    assert offsets(encoded) == sorted(offsets(encoded))


def test_old_record_that_just_fits_is_not_lost():
    """Under the current version it has more fields, and could be larger than a record may be."""
    registry = _Registry("alert")
    table = next(t for t in tables(Topics(), registry) if t.name == "alerts")
    wide = "😀" * MAX_TEXT
    old = registry.schemas[7]

    def encoded(message: str) -> bytes:
        made = record("alert", agent=wide, policy=wide, trace_id=wide, evidence="😀" * 60_000, message=message)
        buffer = io.BytesIO(b"\0\0\0\0\7")
        buffer.seek(5)
        fastavro.schemaless_writer(
            buffer, fastavro.parse_schema(plain(old)), {f["name"]: made[f["name"]] for f in old["fields"]}
        )
        return buffer.getvalue()

    value = encoded("m" * (20_000 + MAX_BYTES - len(encoded("m" * 20_000))))
    assert len(value) == MAX_BYTES
    decoded, _, _ = both(table, [Message(table.topic, 0, 0, None, value)])
    assert decoded.count == 1


def test_kafka_timestamps_of_another_age_are_none():
    value = codec("alert").encode(record("alert"))
    stamps = (-1, 0, 946_684_799_999, 946_684_800_000, 4_102_444_799_999, 4_102_444_800_000, 1 << 62)
    table = ENCODED["alerts"]
    log = [Message(table.topic, 0, i, None, value, timestamp_ms=stamp) for i, stamp in enumerate(stamps)]
    decoded, _, _ = both(table, log)
    assert [row["kafka_timestamp"] for row in decoded.rows] == [0, 0, 0, 946_684_800_000, 4_102_444_799_999, 0, 0]


def test_rows_in_several_parts(monkeypatch: pytest.MonkeyPatch):
    rng = random.Random(8)
    values = [codec("alert").encode(any_record(rng, "alert")) for _ in range(60)]
    log = messages(ENCODED["alerts"], [mutated(rng, v) if rng.random() < 0.2 else v for v in values])
    monkeypatch.setattr("sinks.rows._READ_BYTES", 3000)
    decoded, encoded, _ = both(ENCODED["alerts"], log)
    assert len(encoded.parts) > 5
    assert [encoded.message(i).offset for i in range(decoded.count)] == offsets(encoded)


def test_columns_that_are_empty_in_all_parts_are_left_out(monkeypatch: pytest.MonkeyPatch):
    """An insert has the columns that hold something in any of its blocks, and the rest is what the table has by itself."""
    encode, sent = codec("trace_event").encode, []
    store = SimpleNamespace(
        raw_insert=lambda table, *, column_names, insert_block, **_: sent.append((column_names, insert_block))
    )
    monkeypatch.setattr("sinks.rows._READ_BYTES", 3000)
    filled = {"session_id": "s", "cost_micro_usd": 0, "features": [0.5], "error": "Timeout"}
    plain = [encode(record("trace_event", kind="END"))] * 60
    for values in (plain, [*plain, encode(record("trace_event", kind="END", **filled))]):
        rows, _ = rows_of(EVENTS, messages(EVENTS, values))
        assert isinstance(rows, EncodedRows)
        assert len(rows.parts) > 1
        rows.insert(store, 0, rows.count, {})
    (few, least), (more, _) = sent
    assert set(more) - set(few) == filled.keys()
    assert set(few) >= {"event_id", "kind", "ts", "truncated", "kafka_topic", "kafka_offset"}
    assert len(few) < len(EVENTS.columns) / 2
    assert b"session_id" not in least


def test_a_head_is_looked_at_in_every_value():
    """That the value before was of the current contract says nothing of this one."""
    good = codec("trace_event").encode(record("trace_event", kind="END"))
    foreign = good[:2] + bytes(8) + good[10:]
    header = [(SCHEMA_ID_HEADER, b"?")]
    log = messages(EVENTS, [good, foreign, good, b"", good[:9], good, good + bytes(MAX_BYTES), good])
    log[5] = log[5]._replace(headers=header)
    _, encoded, rejected = both(EVENTS, log)
    assert offsets(encoded) == [0, 2, 7]
    assert [one.message.offset for one in rejected] == [1, 3, 4, 5, 6]


def test_nothing_to_store():
    assert rows_of(EVENTS, [])[0].count == 0
    encoded, rejected = rows_of(EVENTS, messages(EVENTS, [b"no", b""]))
    assert (encoded.count, len(rejected)) == (0, 2)


@pytest.mark.parametrize(
    "kind",
    ["bytes", ["string", "null"], ["null", "string", "long"], {"type": "array", "items": "string"},
     {"type": "map", "values": "long"}, ["null", {"type": "array", "items": "long"}]],
)  # fmt: skip
def test_schemas_that_are_not_read(kind: Any):
    with pytest.raises(ValueError, match="field f"):
        Reader({"type": "record", "name": "R", "fields": [{"name": "f", "type": kind}]}, times=(0, 1))


def test_codec_is_asked_for_nothing_ordinary(monkeypatch: pytest.MonkeyPatch):
    """Ordinary records are never decoded: what makes the sink fast."""
    asked: list[int] = []
    decode = Codec.decode

    def count(self: Codec, value: bytes | None, headers: Any = ()) -> dict[str, Any]:
        asked.append(1)
        return decode(self, value, headers)

    monkeypatch.setattr(Codec, "decode", count)
    rng = random.Random(9)
    values = [codec("reward").encode(any_record(rng, "reward", ts=1_790_000_000_000_000, decided_at=1_790_000_000_000_000)) for _ in range(300)]  # fmt: skip
    encoded, _ = rows_of(ENCODED["rewards"], messages(ENCODED["rewards"], values))
    assert (encoded.count, len(asked)) == (300, 0)
