"""The replay buffer: the last rewards applied, as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learners.pending import Rows
from steersman.snapshot import HEADS

CAPACITY = 4096
"""Rewards that an encoder is trained on, at most."""

MAX_BYTES = 1 << 20
"""What they may take: the buffer is part of the state that every checkpoint writes."""

_LEAST = 1024

_COST = HEADS.index("cost")


@dataclass(frozen=True, eq=False)
class Change:
    """What happened to all rewards before a number.

    Attributes
    ----------
    number : int
    priced : bool
        Whether costs changed; else they count less.
    factors : float64 array (K,)
        By arm, how many times the cost, or what they count.
    """

    number: int
    priced: bool
    factors: NDArray[np.float64]


class Replay:
    """Rewards by their number: the first one applied in an epoch has number 0.

    Parameters
    ----------
    dim : int
        d, length of x.

    Attributes
    ----------
    capacity : int
        How many are needed at least; fewer than `CAPACITY` where contexts are long.
    first : int
        Number of the oldest that is held.
    changes : list of Change
        Those that concern rewards held, by number; the rows are as they came.
    """

    def __init__(self, dim: int) -> None:
        row = 4 * dim + 4 * len(HEADS) + 13
        self.capacity = max(_LEAST, min(CAPACITY, MAX_BYTES // row))
        self.first = 0
        self.changes: list[Change] = []
        self._n = 0
        self._rows = Rows(
            np.empty((256, dim), np.float32),
            np.empty((256, len(HEADS)), np.float32),
            np.empty(256, np.int64),
            np.empty(256, np.bool_),
            np.empty(256, np.float32),
        )

    @property
    def end(self) -> int:
        """Number of the next reward."""
        return self.first + self._n

    def add(self, rows: Rows) -> None:
        """Append rewards."""
        n = len(rows.x)
        while self._n + n > len(self._rows.x):
            self._rows = Rows._make(np.concatenate([array, np.empty_like(array)]) for array in self._rows)
        held: tuple[NDArray[Any], ...] = self._rows
        for array, new in zip(held, rows, strict=True):
            array[self._n : self._n + n] = new
        self._n += n

    def forget_before(self, number: int) -> None:
        """Drop rewards with a lower number."""
        gone = number - self.first
        if gone <= 0:
            return
        held: tuple[NDArray[Any], ...] = self._rows
        for array in held:
            array[: self._n - gone] = array[gone : self._n].copy()
        self._n -= gone
        self.first = number
        self.changes = [change for change in self.changes if change.number > number]

    def rows(self, start: int, end: int) -> Rows:
        """The rewards number `start` to `end` - 1 as they came, float32; views, not to be kept.

        Raises
        ------
        ValueError
            When they are not all held.
        """
        if not self.first <= start <= end <= self.end:
            raise ValueError(f"rewards {start} to {end} are not in a buffer of {self.first} to {self.end}")
        part = slice(start - self.first, end - self.first)
        return Rows._make(array[part] for array in self._rows)

    def changes_within(self, start: int, end: int) -> Iterator[Change]:
        """Changes with a number from `start` to `end` - 1."""
        return (change for change in self.changes if start <= change.number < end)

    def as_of(self, start: int, end: int) -> Rows:
        """The same rewards with the costs, and what they count, as of when the last of them came; a copy."""
        rows = Rows._make(array.copy() for array in self.rows(start, end))
        for change in self.changes_within(start + 1, end):
            part = slice(change.number - start)
            factors = change.factors[rows.arms[part]].astype(np.float32)
            if change.priced:
                rows.y[part, _COST] *= factors
            else:
                rows.weights[part] *= factors
        return rows
