"""Sufficient statistics of the heads: one row of sums per arm, from which every model of any layout can be solved.

A linear model of phi(x, arm) needs only, per arm, the sums of x x', of y x for each head's target y, of y^2, and the count.
They add up: over events, over batches, over shards, in any order. Sums are accumulated row by row in the order given, so a batch
leaves the very same bits as its events one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from steersman.snapshot import HEADS

Float = NDArray[np.float64]

_CHUNK = 64
"""Events expanded at a time: their products stay in the processor's cache."""


class Moments:
    """Sums per arm, kept apart for events with and without quality.

    Parameters
    ----------
    n_arms, dim : int
        K and d.
    heads : int
        Targets; by default those of `steersman.snapshot.HEADS`, to which the shapes below refer.

    Attributes
    ----------
    sums : float64 array (K, 2, W)
        Axis 1: 0 events with quality, 1 without. Axis 2: the packed upper triangle of x x' (T = d (d + 1) / 2), then
        y x for each head (4 d), y^2 for each head (4), and the count (1). Without quality, y of the quality head is 0.
    """

    def __init__(self, n_arms: int, dim: int, heads: int = len(HEADS)) -> None:
        self.dim = dim
        self.heads = heads
        self._rows, self._cols = np.triu_indices(dim)
        self.last_column = np.flatnonzero(self._cols == dim - 1)
        """Where in a row the sums of x are: of x x', the last entry of x being 1."""
        self.width = len(self._rows) + heads * (dim + 1) + 1
        self.sums: Float = np.zeros((n_arms, 2, self.width))

    def add(
        self,
        x: NDArray[np.floating],
        y: NDArray[np.floating],
        arms: NDArray[np.int64],
        with_quality: NDArray[np.bool_],
        weights: NDArray[np.floating] | None = None,
    ) -> None:
        """Add N events.

        Parameters
        ----------
        x : float array (N, d)
        y : float array (N, 4)
            Targets in the order of `steersman.snapshot.HEADS`; quality 0 where there is none.
        arms : int64 array (N,)
        with_quality : bool array (N,)
        weights : float array (N,), optional
            What each event counts; 1 by default.
        """
        for start in range(0, len(x), _CHUNK):
            part = slice(start, start + _CHUNK)
            cell = 2 * arms[part] + ~with_quality[part]
            self._add(x[part].astype(np.float64), y[part], cell, None if weights is None else weights[part])

    def _add(
        self, x: Float, y: NDArray[np.floating], cell: NDArray[np.int64], weights: NDArray[np.floating] | None
    ) -> None:
        triangle = len(self._rows)
        events = np.empty((len(x), self.width))
        np.multiply(x.take(self._rows, axis=1), x.take(self._cols, axis=1), out=events[:, :triangle])
        events[:, triangle : -self.heads - 1] = (y[:, :, None] * x[:, None, :]).reshape(len(x), -1)
        events[:, -self.heads - 1 : -1] = y * y
        events[:, -1] = 1.0
        if weights is not None:
            events *= weights[:, None]
        flat = self.sums.reshape(-1, self.width)
        for key, event in zip(
            cell.tolist(), events, strict=True
        ):  # row by row: batches leave the bits of single events
            flat[key] += event

    def merge(self, other: Moments) -> None:
        """Add another shard's sums; ValueError when it is of another shape."""
        if other.sums.shape != self.sums.shape:
            raise ValueError(f"cannot add sums of shape {other.sums.shape} to {self.sums.shape}")
        self.sums += other.sums

    def shorten(self, factors: Float) -> None:
        """Let what is known of each arm count less: `factors` is float64 (K,)."""
        self.sums *= factors[:, None, None]

    def reprice(self, factors: Float) -> None:
        """Let what was seen of costs be as if each arm had cost so many times as much: `factors` is float64 (K,)."""
        triangle, d, cost = len(self._rows), self.dim, HEADS.index("cost")
        self.sums[:, :, triangle + cost * d : triangle + (cost + 1) * d] *= factors[:, None, None]
        self.sums[:, :, self.width - self.heads - 1 + cost] *= (factors * factors)[:, None]

    @property
    def counts(self) -> Float:
        """Events' worth of evidence per arm, float64 (K,)."""
        return np.asarray(self.sums[:, :, -1].sum(axis=1))

    def unpack(self, sums: Float) -> tuple[Float, Float, Float, Float]:
        """Split rows (K, W) into x x' (K, d, d), y x (K, 4, d), y^2 (K, 4) and counts (K,)."""
        triangle = len(self._rows)
        squares = np.zeros((len(sums), self.dim, self.dim))
        squares[:, self._rows, self._cols] = sums[:, :triangle]
        squares[:, self._cols, self._rows] = sums[:, :triangle]
        products = sums[:, triangle : -self.heads - 1].reshape(len(sums), self.heads, self.dim)
        return squares, products, sums[:, -self.heads - 1 : -1], sums[:, -1]

    def occupied(self) -> Sequence[int]:
        """Flat indices (2 arm + kind) of the rows that hold events, ascending."""
        return [int(i) for i in np.flatnonzero(self.sums[:, :, -1].ravel())]
