"""Records by columns: the bytes are those of fastavro, or none."""

from __future__ import annotations

import io
import random
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from columns.writer import ColumnWriter, NotPlain
from steersman import contracts
from steersman.codec import plain
from tests.columns.test_avro import NUMBERS
from tests.sinks.hostile import any_record

CONTRACTS = ("reward", "rollup", "alert", "ledger")
_WRITERS = {name: ColumnWriter(contracts.schema(name)) for name in CONTRACTS}
_PARSED = {name: fastavro.parse_schema(plain(contracts.schema(name))) for name in CONTRACTS}
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2.0, 2.5, -0.0, 1 << 31, -(1 << 31) - 1, (1 << 63) - 1, 1 << 63, -(1 << 63), -(1 << 63) - 1,
    1 << 80, float("nan"), float("inf"), -float("inf"), 1e300, -1.7e308, "", "LIVE", "UNKNOWN", "no symbol", "\ud800", "\0",
    "x" * 8191, "x" * 8192, b"", b"LIVE", [], [0.5], [1], [True], [None], [float("nan")], [3.4028235677973366e38], [1e39], [-1e39],
    [1 << 31], [1 << 63], (), (0.5,), [0.5] * 9000, {}, {"a": 1}, object(), np.int64(5), np.float64(0.5), np.bool_(True), np.str_("LIVE"),
)  # fmt: skip


def by_records(name: str, records: list[dict[str, Any]]) -> list[bytes]:
    def one(record: dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, _PARSED[name], record)
        return buffer.getvalue()

    return list(map(one, records))


@pytest.mark.parametrize("name", CONTRACTS)
def test_plain_records_are_written_as_fastavro_writes_them(name: str) -> None:
    rng = random.Random(name)
    for count in (1, 2, 3, 17, 300):
        records = [_decoded(name, any_record(rng, name)) for _ in range(count)]
        for record in records:
            for field, value in record.items():
                if isinstance(value, str) and len(value) > 8000:
                    record[field] = value[:8000]
        assert _WRITERS[name].write(records, b"head") == [b"head" + body for body in by_records(name, records)]


def _decoded(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """What comes back of a record: of the types that decoding gives."""
    found = fastavro.schemaless_reader(io.BytesIO(by_records(name, [record])[0]), _PARSED[name], None)
    assert isinstance(found, dict)
    return found


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 1 << 40), st.sampled_from(CONTRACTS), st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=3))
def test_hostile_values_are_written_as_fastavro_writes_them_or_not_at_all(seed: int, name: str, bad: list[Any]) -> None:
    rng = random.Random(seed)
    records = [_decoded(name, any_record(rng, name)) for _ in range(rng.randint(1, 6))]
    for value in bad:
        rng.choice(records)[rng.choice(list(records[0]))] = value
    try:
        written = _WRITERS[name].write(records)
    except NotPlain:
        return
    assert written == by_records(name, records)


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_hostile_value_in_every_field(name: str) -> None:
    record = _decoded(name, any_record(random.Random(1), name))
    written = 0
    for field in record:
        for value in HOSTILE:
            records = [record, record | {field: value}]
            try:
                found = _WRITERS[name].write(records)
            except NotPlain:
                continue
            written += 1
            assert found == by_records(name, records), (field, value)
    assert written > len(record)  # what is plain is written


@settings(deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "long": st.integers(-(1 << 63), (1 << 63) - 1),
                "int": st.none() | st.integers(-(1 << 31), (1 << 31) - 1),
                "text": st.text(max_size=200),
                "longs": st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=70),
                "ints": st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=70),
                "floats": st.lists(st.floats(-1000, 1000, width=32), max_size=70),
                "doubles": st.lists(st.floats(-1e300, 1e300), max_size=70),
            }
        ),
        min_size=1,
        max_size=20,
    )
)
def test_numbers_of_every_width(records: list[dict[str, Any]]) -> None:
    schema = NUMBERS | {"fields": [field for field in NUMBERS["fields"] if field["name"] != "float"]}
    expected = []
    for record in records:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, record)
        expected.append(buffer.getvalue())
    assert ColumnWriter(schema).write(records) == expected


@pytest.mark.parametrize("change", [{"unknown": 1}, {"seq": None}])
def test_a_record_with_other_fields_is_not_plain(change: dict[str, Any]) -> None:
    record = _decoded("reward", any_record(random.Random(2), "reward"))
    other = record | change
    if change == {"seq": None}:
        del other["seq"]  # which fastavro would fill in
    with pytest.raises(NotPlain):
        _WRITERS["reward"].write([record, other])
    swapped = {name: value for name, value in record.items() if name != "seq"} | {"unknown": 1}
    with pytest.raises(NotPlain):
        _WRITERS["reward"].write([record, swapped])


def test_nothing_is_written_of_nothing() -> None:
    assert _WRITERS["reward"].write([]) == []


@pytest.mark.parametrize(
    "kind",
    ["bytes", "float", ["long", "null"], ["null", "long", "string"], {"type": "map", "values": "long"},
     {"type": "array", "items": "string"}, {"type": "fixed", "name": "F", "size": 4}],
)  # fmt: skip
def test_other_schemas_are_refused(kind: Any) -> None:
    fields = [{"name": "n", "type": "long"}, {"name": "f", "type": kind}]
    with pytest.raises(ValueError, match="field f"):
        ColumnWriter({"type": "record", "name": "R", "fields": fields})
