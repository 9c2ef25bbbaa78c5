"""Columns of strings as numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from columns.avro import ColumnReader
from columns.block import Block
from streams.text_columns import combine, hex_ids

_READER = ColumnReader({"type": "record", "name": "R", "fields": [{"name": "id", "type": ["null", "string"]}]})
_DIGITS = b"0123456789abcdef"


def block_of(texts: list[bytes]) -> Block:
    values = [b"\x02" + bytes([2 * len(text)]) + text for text in texts]
    return _READER.read(values, np.zeros(len(values), np.int64))


def test_every_byte_in_every_place_is_a_digit_or_not() -> None:
    for place in range(16):
        texts = [_DIGITS[:place] + bytes([byte]) + _DIGITS[place + 1 :] for byte in range(256)]
        ids = hex_ids(block_of(texts), "id", 16)
        assert ids.valid.tolist() == [byte in _DIGITS for byte in range(256)]
        words = [int(text, 16) if valid else 0 for text, valid in zip(texts, ids.valid.tolist(), strict=True)]
        assert ids.words[:, 0].tolist() == words


@settings(deadline=None)
@given(
    st.integers(1, 30).flatmap(
        lambda rows: st.lists(
            st.lists(st.sampled_from([0, 1, 2, 77, (1 << 31) - 1, (1 << 50)]), min_size=rows, max_size=rows),
            min_size=1,
            max_size=7,
        )
    )
)
def test_numbers_are_equal_where_all_columns_are(columns: list[list[int]]) -> None:
    numbers = combine(*(np.array(column) for column in columns)).tolist()
    rows = list(zip(*columns, strict=True))
    assert [[a == b for b in numbers] for a in numbers] == [[a == b for b in rows] for a in rows]
    assert min(numbers) >= 0
