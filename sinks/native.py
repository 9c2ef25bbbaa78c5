"""ClickHouse's Native format from arrays: columns of rows, and blocks of any run of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from columns.column import Bools, Longs


class Column(Protocol):
    """Values of all rows."""

    @property
    def empty(self) -> bool:
        """True when every value is what a column holds that an insert leaves out: null, no text, no items."""

    def pieces(self, first: int, last: int) -> Iterator[bytes]:
        """Yield the encoded values of the rows `first` to `last`, the last excluded."""


@dataclass(frozen=True)
class Fixed:
    """Numbers; `nulls` says which of them are none, None for a column that is not nullable."""

    values: NDArray[Any]
    nulls: Bools | None = None

    @property
    def empty(self) -> bool:
        return self.nulls is not None and bool(self.nulls.all())

    def pieces(self, first: int, last: int) -> Iterator[bytes]:
        if self.nulls is not None:
            yield self.nulls[first:last].tobytes()
        yield self.values[first:last].tobytes()


@dataclass(frozen=True)
class Text:
    """Strings as they are sent, each behind its length, and where each begins: one offset more than rows."""

    encoded: bytes
    offsets: Longs

    @property
    def empty(self) -> bool:
        return len(self.encoded) == len(self.offsets) - 1  # nothing but lengths

    def pieces(self, first: int, last: int) -> Iterator[bytes]:
        yield self.encoded[self.offsets[first] : self.offsets[last]]


@dataclass(frozen=True)
class Lists:
    """Arrays of numbers, one behind the other, and where each begins: one offset more than rows."""

    values: NDArray[Any]
    offsets: Longs

    @property
    def empty(self) -> bool:
        return not len(self.values)

    def pieces(self, first: int, last: int) -> Iterator[bytes]:
        yield (self.offsets[first + 1 : last + 1] - self.offsets[first]).astype("<u8").tobytes()
        yield self.values[self.offsets[first] : self.offsets[last]].tobytes()


def block(types: Sequence[tuple[str, str]], columns: Sequence[Column], first: int, last: int) -> bytes:
    """Encode some rows as a block.

    Parameters
    ----------
    types
        Names and ClickHouse types of the columns.
    columns
        Their values.
    first, last
        Rows, the last excluded.
    """
    parts = [leb128(len(types)), leb128(last - first)]
    for (name, kind), column in zip(types, columns, strict=True):
        for text in (name.encode(), kind.encode()):
            parts += (leb128(len(text)), text)
        parts += column.pieces(first, last)
    return b"".join(parts)


def leb128(number: int) -> bytes:
    """Encode a length: seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def repeated(text: str, rows: int) -> Text:
    """Column of the same text in every row."""
    value = text.encode()
    one = leb128(len(value)) + value
    return Text(one * rows, np.arange(rows + 1) * len(one))


def gathered(source: NDArray[np.uint8], starts: Longs, sizes: Longs) -> Text:
    """Column of texts that lie anywhere in a source.

    Parameters
    ----------
    source : ndarray, uint8
        Bytes.
    starts, sizes : ndarray, shape (n,), int64
        Where each text begins and how long it is, below 2 MiB; unit: bytes.
    """
    if not sizes.any():
        return repeated("", len(sizes))
    prefix = 1 + (sizes > 0x7F) + (sizes > 0x3FFF)
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(prefix + sizes, out=offsets[1:])
    out = np.empty(int(offsets[-1]), np.uint8)
    heads = offsets[:-1]
    for k in range(int(prefix.max(initial=1))):
        rows = np.flatnonzero(prefix > k) if k else slice(None)
        more = (prefix[rows] > k + 1).astype(np.uint8) << 7
        out[heads[rows] + k] = (sizes[rows] >> 7 * k & 0x7F).astype(np.uint8) | more
    bodies = heads + prefix
    # Most columns have few lengths, and texts of one length are copied at once.
    order = np.argsort(sizes.astype(np.uint16), kind="stable") if sizes.max(initial=0) < 1 << 16 else np.argsort(sizes)
    ordered = sizes[order]
    bounds = np.concatenate(([0], np.flatnonzero(np.diff(ordered)) + 1, [len(ordered)]))
    if len(bounds) <= 1 + max(16, len(sizes) // 64):
        for low, high in pairwise(bounds.tolist()):
            if size := int(ordered[low]) if high > low else 0:
                rows = order[low:high]
                _texts(out, size)[bodies[rows]] = _texts(source, size)[starts[rows]]
    else:
        target, origin = out.data, source.data
        for start, body, size in zip(starts.tolist(), bodies.tolist(), sizes.tolist(), strict=True):
            target[body : body + size] = origin[start : start + size]
    return Text(out.tobytes(), offsets)


def _texts(source: NDArray[np.uint8], size: int) -> NDArray[Any]:
    """Every place of the bytes as the beginning of a text of that size."""
    return np.ndarray((len(source) - size + 1,), f"V{size}", source, strides=(1,))
