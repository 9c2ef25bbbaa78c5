"""Bodies by columns: rows that are sure are what the codec decodes, and all that the codec refuses is doubtful."""

from __future__ import annotations

import io
import math
import random
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.avro_container import zigzag
from columns import text
from columns.avro import ColumnReader
from steersman import contracts
from steersman.codec import Codec
from steersman.errors import DecodeError
from tests.sinks.hostile import any_record, mutated
from tests.streams.raw_logs import CURRENT, raw_log
from tests.streams.trace_events import T0, decision, event

CODEC = Codec("trace_event")
READER = ColumnReader(CURRENT)
HEAD = len(CODEC.head)


def sure_rows(values: list[bytes], reader: ColumnReader = READER, start: int = HEAD) -> dict[int, dict[str, Any]]:
    block = reader.read(values, np.full(len(values), start))
    rows = np.flatnonzero(block.sure)
    return dict(zip(rows.tolist(), block.records(rows, block.columns), strict=True))


@settings(deadline=None)
@given(st.integers(0, 1 << 40), st.sampled_from([0.0, 0.5, 1.0]))
def test_sure_rows_are_what_the_codec_decodes(seed: int, spoilt: float) -> None:
    log = raw_log(random.Random(seed), 40, spoilt)
    values = [v for v, headers, _ in log if v and v.startswith(CODEC.head) and not headers and len(v) <= 10_000]
    if not values:
        return
    found = sure_rows(values)
    for row, value in enumerate(values):
        try:
            expected = CODEC.decode(value)
        except DecodeError:
            assert row not in found
            continue
        if row in found:
            assert found[row] == expected
            assert list(map(type, found[row].values())) == list(map(type, expected.values()))
        else:
            assert spoilt > 0, "nothing is wrong with the row"


def test_ordinary_rows_are_sure() -> None:
    values = [
        CODEC.encode(event("AGENT", T0, "ü", comment="größer", session_id="", duration_us=1 << 40)),
        CODEC.encode(decision(T0, features=[0.5] * 300, eligible=[0, 3, 70, 1 << 30])),
        CODEC.encode(event("FEEDBACK", T0, metric="m", value=-1e300, truncated=True, cost_micro_usd=-5)),
    ]
    assert sure_rows(values) == {row: CODEC.decode(value) for row, value in enumerate(values)}


def test_a_union_index_beyond_the_branches_is_doubtful() -> None:
    good = CODEC.encode(event("AGENT", T0, session_id="s"))
    place = good.index(b"\x02\x02s")
    bad = good[:place] + b"\x04" + good[place + 1 :]
    assert set(sure_rows([good, bad, good])) == {0, 2}
    with pytest.raises(DecodeError):
        CODEC.decode(bad)


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_a_row_cut_short_disturbs_no_other(cut: int) -> None:
    good = CODEC.encode(decision(T0, features=[1.0, 2.0], eligible=[1]))
    found = sure_rows([good, good[: HEAD + cut], good + b"\x00", good])
    assert set(found) == {0, 3}
    assert found[0] == found[3] == CODEC.decode(good)


@pytest.mark.parametrize(
    "kind",
    ["bytes", ["string", "null"], ["null", "string", "long"], {"type": "map", "values": "long"}, ["null", {"type": "array", "items": "int"}]],
)  # fmt: skip
def test_other_schemas_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="field f"):
        ColumnReader({"type": "record", "name": "R", "fields": [{"name": "f", "type": kind}]})


def test_an_enum_whose_numbers_take_two_bytes_is_refused() -> None:
    many = {"type": "enum", "name": "E", "symbols": [f"S{i}" for i in range(65)]}
    with pytest.raises(ValueError, match="field f"):
        ColumnReader({"type": "record", "name": "R", "fields": [{"name": "f", "type": many}]})


def test_every_version_of_the_contract_can_be_read_by_columns() -> None:
    for version in contracts.versions("trace_event"):
        ColumnReader(version)


@pytest.mark.parametrize("name", ["reward", "rollup", "alert", "ledger", "trace_event"])
def test_other_contracts(name: str) -> None:
    """Ten-byte longs, ints, floats, arrays of each: what is sure is what the codec decodes."""
    rng, codec = random.Random(name), Codec(name)
    reader = ColumnReader(contracts.schema(name))
    values = [codec.encode(any_record(rng, name)) for _ in range(600)]
    assert sure_rows(values, reader) == {row: codec.decode(value) for row, value in enumerate(values)}
    values = [mutated(rng, value) if rng.random() < 0.3 else value for value in values]
    found = sure_rows(values, reader)
    assert 400 < len(found) < 600
    for row, record in found.items():
        assert record == codec.decode(values[row])


NUMBERS: dict[str, Any] = {
    "type": "record",
    "name": "R",
    "fields": [
        {"name": "long", "type": "long"},
        {"name": "int", "type": ["null", "int"]},
        {"name": "float", "type": ["null", "float"]},
        {"name": "text", "type": "string"},
        *(
            {"name": f"{kind}s", "type": {"type": "array", "items": kind}}
            for kind in ("long", "int", "float", "double")
        ),
    ],
}
_LONG = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 63).flatmap(
    lambda bits: st.sampled_from([(1 << bits) - 1, -(1 << bits)])
)
_INT = st.integers(-(1 << 31), (1 << 31) - 1)
_FLOAT = st.floats(allow_nan=False, allow_infinity=False, width=32)
_ROW = st.fixed_dictionaries(
    {
        "long": _LONG,
        "int": st.none() | _INT,
        "float": st.none() | _FLOAT,
        "text": st.text(max_size=200),
        "longs": st.lists(_LONG, max_size=70),
        "ints": st.lists(_INT, max_size=70),
        "floats": st.lists(_FLOAT, max_size=70),
        "doubles": st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=70),
    }
)


def encoded(row: dict[str, Any], head: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, NUMBERS, row)
    return head + buffer.getvalue()


@settings(deadline=None)
@given(st.lists(st.tuples(_ROW, st.sampled_from([b"", b"\xff\x00", b"\x80" * 17])), min_size=1, max_size=20))
def test_numbers_of_every_width_behind_heads_of_any_length(rows: list[tuple[dict[str, Any], bytes]]) -> None:
    values = [encoded(row, head) for row, head in rows]
    block = ColumnReader(NUMBERS).read(values, np.array([len(head) for _, head in rows]))
    assert block.sure.all()
    assert block.records(np.arange(len(rows)), block.columns) == [row for row, _ in rows]


EMPTY: dict[str, Any] = {
    "long": 0, "int": None, "float": None, "text": "", "longs": [], "ints": [], "floats": [], "doubles": [],
}  # fmt: skip


@pytest.mark.parametrize("field", ["text", "longs", "ints", "floats", "doubles"])
@pytest.mark.parametrize("length", [1, 2, 63, 64, 8191, 1 << 31, 1 << 54, (1 << 54) + 1, 1 << 60, (1 << 63) - 1, -1, -(1 << 63)])  # fmt: skip
def test_a_length_that_promises_too_much_is_doubtful(field: str, length: int) -> None:
    good = encoded(EMPTY)
    at = len(good) - 5 + ["text", "longs", "ints", "floats", "doubles"].index(field)
    bad = good[:at] + zigzag(length) + good[at + 1 :]
    assert sure_rows([good, bad, good], ColumnReader(NUMBERS), 0) == {0: EMPTY, 2: EMPTY}


@pytest.mark.parametrize("where", ["long", "longs"])
@pytest.mark.parametrize(("number", "sure"), [(b"\x80" * 9 + b"\x01", True), (b"\x80" * 9 + b"\x00", True), (b"\x80" * 9 + b"\x02", False), (b"\xff" * 9 + b"\x01", True), (b"\x80" * 10 + b"\x00", False), (b"\x80" * 30, False)])  # fmt: skip
def test_numbers_of_ten_bytes_and_more(where: str, number: bytes, sure: bool) -> None:
    good = encoded(EMPTY)
    bad = number + good[1:] if where == "long" else good[:4] + b"\x04" + number + b"\x02\x00" + good[5:]
    found = sure_rows([good, bad, good], ColumnReader(NUMBERS), 0)
    assert set(found) == ({0, 1, 2} if sure else {0, 2})
    if sure:
        assert found[1] == fastavro.schemaless_reader(io.BytesIO(bad), NUMBERS, None)


@pytest.mark.parametrize("number", [1 << 31, -(1 << 31) - 1])
def test_an_int_of_more_than_32_bits_is_doubtful(number: int) -> None:
    good = encoded({**EMPTY, "int": 1})
    bad = good.replace(b"\x02\x02", b"\x02" + zigzag(number))
    several = encoded({**EMPTY, "ints": [5, 6]}).replace(b"\x04\x0a\x0c", b"\x04\x0a" + zigzag(number))
    assert set(sure_rows([good, bad, good, several], ColumnReader(NUMBERS), 0)) == {0, 2}


@pytest.mark.parametrize("field", ["floats", "doubles"])
def test_a_number_in_an_array_that_is_not_finite_is_doubtful(field: str) -> None:
    rows = [{**EMPTY, field: [1.0, value, 2.0]} for value in (0.5, math.inf, -0.5, math.nan)]
    found = sure_rows([encoded(row) for row in rows], ColumnReader(NUMBERS), 0)
    assert found == {0: rows[0], 2: rows[2]}


@pytest.mark.parametrize("field", ["ints", "longs", "floats", "doubles"])
@pytest.mark.parametrize("end", [b"\x02", b"\x01", b"\x80", b""])
def test_an_array_that_does_not_end_with_its_block_is_doubtful(field: str, end: bytes) -> None:
    """Whether or not another value follows."""
    schema = {**NUMBERS, "fields": [f for f in NUMBERS["fields"] if f["name"] == field]}
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, {field: [1, 2]})
    good = buffer.getvalue()
    assert set(sure_rows([good, good[:-1] + end, good], ColumnReader(schema), 0)) == {0, 2}


@pytest.mark.parametrize("symbol", [0, 1, 2, 3, 4, 6, 0x7F, 0x80, 0xFF])
def test_symbols(symbol: int) -> None:
    kind = {"type": "enum", "name": "E", "symbols": ["A", "B", "C"]}
    reader = ColumnReader({"type": "record", "name": "R", "fields": [{"name": "f", "type": ["null", kind]}]})
    found = sure_rows([b"\x02\x02", b"\x02" + bytes([symbol]), b"\x00"], reader, 0)
    named = {1: {"f": "ABC"[symbol // 2]}} if symbol in (0, 2, 4) else {}
    assert found == {0: {"f": "B"}, 2: {"f": None}} | named


def test_strings_are_looked_at_only_where_some_byte_is_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes reading fast: high bytes of heads and of numbers of any width are accounted for."""
    looked: list[int] = []
    monkeypatch.setattr(text, "_check_rows", lambda *_: looked.append(1))
    row = {**EMPTY, "int": -70_000, "float": -1.5, "text": "t" * 300, "floats": [0.1] * 99, "doubles": [-0.1, 1e300]}
    rows = [{**row, "long": number, "longs": [number] * 70} for bits in range(64) for number in ((1 << bits) - 1, -(1 << bits))]  # fmt: skip
    heads = [b"\xc3\x01\xff", b"", b"\x80\x7f"]
    values = [encoded(row, heads[number % 3]) for number, row in enumerate(rows)]
    starts = np.array([len(heads[number % 3]) for number in range(len(rows))])
    assert ColumnReader(NUMBERS).read(values, starts).sure.all()
    assert not looked
    ColumnReader(NUMBERS).read([*values, encoded({**EMPTY, "text": "ß"})], np.append(starts, 0))
    assert looked


def test_many_fields() -> None:
    """A row without bytes reads zeros, however many fields there are."""
    schema = {"type": "record", "name": "R", "fields": [{"name": f"f{i}", "type": "double"} for i in range(300)]}
    value = bytes(8 * 300)
    assert set(sure_rows([value, b"", value, value[:-1], b"", b""], ColumnReader(schema), 0)) == {0, 2}


def test_text_that_is_no_utf8_is_doubtful_in_its_row_alone() -> None:
    """Among more rows than are looked at together, and behind heads and numbers of high bytes."""
    good, foreign = encoded({**EMPTY, "long": 1 << 62, "text": "aß"}), encoded({**EMPTY, "text": "ß" * 9})
    bad = good.replace("ß".encode(), b"\xc3\x28")
    values = [good, foreign] * 2600
    broken = {0, 1999, 2000, 2001, 4000, 5199}
    for row in broken:
        values[row] = bad
    assert set(range(len(values))) - set(sure_rows(values, ColumnReader(NUMBERS), 0)) == broken
