"""Bodies by columns: rows that are sure are what the codec decodes, and all that the codec refuses is doubtful."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman import contracts
from steersman.codec import Codec
from steersman.errors import DecodeError
from streams.avro_columns import ColumnReader
from tests.streams.raw_logs import CURRENT, raw_log
from tests.streams.trace_events import T0, decision, event

CODEC = Codec("trace_event")
READER = ColumnReader(CURRENT)
HEAD = len(CODEC.head)


def sure_rows(values: list[bytes]) -> dict[int, dict[str, Any]]:
    block = READER.read([value[HEAD:] for value in values])
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


def test_a_union_index_that_polars_would_take_is_doubtful() -> None:
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


def test_too_many_fields_are_refused() -> None:
    fields = [{"name": f"f{i}", "type": "long"} for i in range(200)]
    with pytest.raises(ValueError, match="too many"):
        ColumnReader({"type": "record", "name": "R", "fields": fields})


def test_every_version_of_the_contract_can_be_read_by_columns() -> None:
    for version in contracts.versions("trace_event"):
        ColumnReader(version)
