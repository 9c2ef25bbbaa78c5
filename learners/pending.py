"""Rewards that a learner has taken in and whose sums are still to be made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST = 64
"""Rewards that wait at most: `learners.moments` expands so many at a time."""


class Rows(NamedTuple):
    """N rewards, in the order of their log.

    Attributes
    ----------
    x : float32 array (N, d)
    y : float array (N, 4)
        Targets in the order of `steersman.snapshot.HEADS`, cost and latency in scales; quality 0 where there is none.
    arms : int64 array (N,)
    rated : bool array (N,)
        Whether there is a quality.
    weights : float array (N,)
        What each counts.
    """

    x: NDArray[np.float32]
    y: NDArray[np.floating]
    arms: NDArray[np.int64]
    rated: NDArray[np.bool_]
    weights: NDArray[np.floating]

    def part(self, start: int, end: int) -> Rows:
        """Those from one place to before another."""
        place = slice(start, end)
        return Rows(self.x[place], self.y[place], self.arms[place], self.rated[place], self.weights[place])


class Pending:
    """Collects rewards one by one and hands them over as arrays.

    A call of numpy costs the same for one reward as for many, and what is added row by row has the same bits whether the rows come
    singly or together. So rewards that come one by one wait here until somebody asks for the sums.

    Attributes
    ----------
    rows : list of tuple
        Those that wait, each an entry of every column of `Rows`.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[Sequence[float], tuple[float, float, float, float], int, bool, float]] = []

    def take(self) -> Rows:
        """Hand over all that wait, one at least; nothing waits then."""
        x, y, arms, rated, weights = zip(*self.rows, strict=True)
        self.rows.clear()
        return Rows(
            np.array(x, dtype=np.float32),
            np.array(y, dtype=np.float64),
            np.array(arms, dtype=np.int64),
            np.array(rated, dtype=np.bool_),
            np.array(weights, dtype=np.float64),
        )
