"""Container files of encoded bodies, read back by fastavro."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.avro_container import container, container_header, zigzag
from steersman.codec import Codec
from tests.streams.trace_events import T0, event

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "R",
    "fields": [{"name": "n", "type": "long"}, {"name": "s", "type": ["null", "string"]}],
}


@given(st.lists(st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), st.none() | st.text(max_size=300)), max_size=40))
def test_fastavro_reads_what_was_joined(rows: list[tuple[int, str | None]]) -> None:
    pieces = []
    for number, text in rows:
        raw = b"" if text is None else text.encode()
        pieces += [zigzag(number), b"\x00" if text is None else b"\x02" + zigzag(len(raw)) + raw]
    made = container(container_header(SCHEMA), pieces, len(rows))
    assert [(row["n"], row["s"]) for row in fastavro.reader(io.BytesIO(made))] == rows  # type: ignore[index, call-overload]


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1])
def test_a_number_of_more_than_64_bits_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        zigzag(number)


def test_bodies_of_kafka_records_need_no_decoding() -> None:
    codec = Codec("trace_event")
    events = [event("MODEL_CALL", T0, "a"), event("AGENT", T0 + 1, "b")]
    values = [codec.encode(one) for one in events]
    (schema, start), (other, _) = (codec.frame(value) for value in values)
    assert schema is other
    made = container(container_header(schema), [value[start:] for value in values], len(values))
    read = list(fastavro.reader(io.BytesIO(made)))
    assert [row["event_id"] for row in read] == [one["event_id"] for one in events]  # type: ignore[index, call-overload]
