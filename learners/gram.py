"""From the sums per arm to the sums over phi(x, arm), which a regression needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steersman.layout import Layout

Float = NDArray[np.float64]


def assemble(
    layout: Layout, arms: NDArray[np.int64], squares: Float, products: Float, counts: Float
) -> tuple[Float, Float]:
    """Sum of phi phi' and of y phi over all events, by blocks: no event is looked at again.

    Parameters
    ----------
    layout : Layout
    arms : int64 array (N,)
        Arms that have events.
    squares : float64 array (N, d, d)
        Their sums of x x'.
    products : float64 array (N, H, d)
        Their sums of y x, per target.
    counts : float64 array (N,)
        Their numbers of events.

    Returns
    -------
    gram : float64 array (D, D)
        Lower triangle by blocks; entries above the block diagonal are 0.
    sums : float64 array (D, H)
    """
    level_of, pair_of, cols = layout.level_of[arms], layout.pair_of[arms], layout.columns
    d, m, n_levels, n_pairs = layout.dim, len(cols), layout.n_levels, layout.n_pairs
    at = d + n_levels * m
    sums_x = squares[:, -1]  # the last column of x is 1
    gram = np.zeros((layout.size, layout.size))
    gram[:d, :d] = squares.sum(axis=0)
    gram[d:at, :d] = np.tensordot(level_of, squares[:, cols], axes=(0, 0)).reshape(n_levels * m, d)
    both = (level_of[:, :, None] * level_of[:, None, :]).reshape(len(arms), n_levels * n_levels)
    inner = np.tensordot(both, squares[:, cols[:, None], cols], axes=(0, 0)).reshape(n_levels, n_levels, m, m)
    gram[d:at, d:at] = inner.transpose(0, 2, 1, 3).reshape(n_levels * m, n_levels * m)
    gram[at:, :d] = pair_of.T @ sums_x
    crossed = (pair_of[:, :, None] * level_of[:, None, :]).reshape(len(arms), n_pairs * n_levels)
    gram[at:, d:at] = (crossed.T @ sums_x[:, cols]).reshape(n_pairs, n_levels * m)
    gram[at:, at:] = (pair_of.T * counts) @ pair_of

    heads = products.shape[1]
    sums = np.zeros((layout.size, heads))
    sums[:d] = products.sum(axis=0).T
    by_level = np.tensordot(level_of, products[:, :, cols], axes=(0, 0))
    sums[d:at] = by_level.transpose(0, 2, 1).reshape(n_levels * m, heads)
    sums[at:] = pair_of.T @ products[:, :, -1]
    return gram, sums
