"""Many records as columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from columns.column import Bools, Column, Longs, Numbers, Texts


@dataclass(slots=True)
class Block:
    """Records as columns.

    Attributes
    ----------
    raw : bytes
        The bytes that were read, and zeros behind them.
    rest : int
        Where the zeros begin; there are 64 at least.
    sure : ndarray of bool, shape (rows,)
        False for doubtful rows; what the columns hold for them means nothing.
    columns : dict of str to Column
        By field name, in the order of the schema.
    """

    raw: bytes
    rest: int
    sure: Bools
    columns: dict[str, Column]

    def texts(self, name: str) -> Texts:
        """Return a column of strings."""
        column = self.columns[name]
        if not isinstance(column, Texts):
            raise TypeError(f"{name} is no column of strings")
        return column

    def numbers(self, name: str) -> Numbers:
        """Return a column of numbers, booleans or symbols."""
        column = self.columns[name]
        if not isinstance(column, Numbers):
            raise TypeError(f"{name} is no column of numbers")
        return column

    def records(self, rows: Longs, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return some fields of some rows as records: what `Codec.decode` gives, of rows that are sure."""
        wanted = tuple(names)
        picked = [self.columns[name].pick(rows) for name in wanted]
        return [dict(zip(wanted, values, strict=True)) for values in zip(*picked, strict=True)]
