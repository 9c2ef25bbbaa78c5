"""What given parameters predict of many rewards at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steersman.layout import Layout

Float = NDArray[np.float64]


def predict(layout: Layout, theta: Float, x: NDArray[np.floating], arms: NDArray[np.int64]) -> Float:
    """Expected targets, float64 (N, H), of N events.

    Parameters
    ----------
    layout : Layout
    theta : float64 array (D, H)
        Parameters, a column per target.
    x : float array (N, d)
    arms : int64 array (N,)
    """
    d, m, heads = layout.dim, len(layout.columns), theta.shape[1]
    at = d + layout.n_levels * m
    blocks = theta[d:at].reshape(layout.n_levels, m, heads)
    own = np.tensordot(layout.level_of[arms], blocks, axes=1)
    guess: Float = x @ theta[:d] + np.einsum("nm,nmh->nh", x[:, layout.columns], own)
    guess += layout.pair_of[arms] @ theta[at:]
    return guess
