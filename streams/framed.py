"""Records of a batch that may be read by columns, told from those that only the codec can judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from columns.column import Longs
from steersman.codec import Codec
from steersman.errors import DecodeError
from steersman.record_checks import MAX_ITEMS
from streams.record_batch import RecordBatch


def framed(batch: RecordBatch, start: int, codec: Codec, schema: Mapping[str, Any]) -> tuple[list[bytes], Longs]:
    """Return the records of a batch for `columns.avro.ColumnReader`.

    Parameters
    ----------
    batch : RecordBatch
        The records.
    start : int
        Index of the first that is wanted.
    codec : Codec
        Of their contract.
    schema : mapping
        The contract's current version; records of other writers are left out.

    Returns
    -------
    values : list of bytes
        A value for each record; of one that the codec has to look at nothing, which makes it doubtful.
    starts : ndarray of int64, shape (records,)
        Where their bodies begin; unit: bytes.
    """
    values, headers, frame, head = batch.values, batch.headers, codec.frame, codec.head
    plain = _plain(values[start:] if start else values, head)
    if plain is not None and not any(headers[start:]):
        return plain, np.full(len(plain), len(head))
    taken = [b""] * (len(values) - start)
    starts = np.full(len(taken), len(head))
    for row, index in enumerate(range(start, len(values))):
        value = values[index]
        # What is longer than this has to be looked at for too many items or characters.
        if value is None or len(value) > MAX_ITEMS:
            continue
        if value.startswith(head) and not headers[index]:
            taken[row] = value
            continue
        try:
            written, begin = frame(value, headers[index])
        except DecodeError:
            continue
        if written is schema:
            taken[row], starts[row] = value, begin
    return taken, starts


def _plain(values: list[bytes | None], head: bytes) -> list[bytes] | None:
    """Return the values if all of them are of the current contract by their heads and none is too long; None otherwise."""
    held = [value for value in values if value is not None and value.startswith(head)]
    return held if len(held) == len(values) and max(map(len, held), default=0) <= MAX_ITEMS else None
