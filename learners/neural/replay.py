"""The replay buffer: the last rewards applied, as numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steersman.snapshot import HEADS

CAPACITY = 4096
"""Rewards that an encoder is trained on, at most."""

MAX_BYTES = 1 << 20
"""What they may take: the buffer is part of the state that every checkpoint writes."""

_LEAST = 1024


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
    """

    def __init__(self, dim: int) -> None:
        row = 4 * dim + 4 * len(HEADS) + 9
        self.capacity = max(_LEAST, min(CAPACITY, MAX_BYTES // row))
        self.first = 0
        self._n = 0
        self._x = np.empty((256, dim), dtype=np.float32)
        self._y = np.empty((256, len(HEADS)), dtype=np.float32)
        self._arms = np.empty(256, dtype=np.int64)
        self._rated = np.empty(256, dtype=np.bool_)

    @property
    def end(self) -> int:
        """Number of the next reward."""
        return self.first + self._n

    def add(
        self, x: NDArray[np.floating], y: NDArray[np.floating], arms: NDArray[np.int64], rated: NDArray[np.bool_]
    ) -> None:
        """Append N rewards; arguments as of `learners.moments.Moments.add`."""
        while self._n + len(x) > len(self._x):
            self._x, self._y, self._arms, self._rated = (
                np.concatenate([array, np.empty_like(array)]) for array in (self._x, self._y, self._arms, self._rated)
            )
        part = slice(self._n, self._n + len(x))
        self._x[part], self._y[part], self._arms[part], self._rated[part] = x, y, arms, rated
        self._n += len(x)

    def forget_before(self, number: int) -> None:
        """Drop rewards with a lower number."""
        gone = number - self.first
        if gone <= 0:
            return
        for array in (self._x, self._y, self._arms, self._rated):
            array[: self._n - gone] = array[gone : self._n].copy()
        self._n -= gone
        self.first = number

    def rows(
        self, start: int, end: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
        """x, y, arms and whether rated of the rewards number `start` to `end` - 1; views, not to be kept.

        Raises
        ------
        ValueError
            When they are not all held.
        """
        if not self.first <= start <= end <= self.end:
            raise ValueError(f"rewards {start} to {end} are not in a buffer of {self.first} to {self.end}")
        part = slice(start - self.first, end - self.first)
        return self._x[part], self._y[part], self._arms[part], self._rated[part]
