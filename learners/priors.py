"""How strongly each block of parameters is shrunk, by default.

Precisions are in events: what a parameter's prior is worth. They were chosen on replays of real routing data, the same
for all sets. Quality: arms differ little against the noise of a single answer, so a level's own mean is worth 10 events;
categories carry most of what a context tells, single embedding entries next to nothing. Cost, latency and failures are
nearly free of noise, so a handful of events is believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steersman.features import ColumnKind
from steersman.layout import Layout


@dataclass(frozen=True)
class Prior:
    """Prior precisions, in events.

    Attributes
    ----------
    shared, shared_constant : float
        What all arms have in common: effects of the context, and the constant.
    interactions : mapping of column kind to float
        Effects of the context on one level of a knob; ``constant`` is the level's own mean.
    pair : float
        What two levels of two knobs do together beyond their sum.
    """

    shared: float
    shared_constant: float
    interactions: Mapping[ColumnKind, float]
    pair: float


QUALITY_PRIOR = Prior(
    shared=1.0,
    shared_constant=0.1,
    interactions={"constant": 10.0, "categorical": 10.0, "numeric": 30.0, "embedding": 1000.0, "text": 1000.0},
    pair=50.0,
)
"""Quality is noisy: effects of single levels must earn belief."""

COMPONENT_PRIOR = Prior(
    shared=1.0,
    shared_constant=0.1,
    interactions={"constant": 0.3, "categorical": 3.0, "numeric": 10.0, "embedding": 1000.0, "text": 1000.0},
    pair=3.0,
)
"""Cost, latency and failures are nearly free of noise: a few events tell."""

NOISE = 0.1
"""Noise variance before any event (quality between 0 and 1)."""

NOISE_N = 4.0
"""Events that `NOISE` is worth."""


def precision(layout: Layout, kinds: Sequence[ColumnKind], prior: Prior) -> NDArray[np.float64]:
    """Prior precision of each of the D parameters of a layout, float64 (D,)."""
    shared = np.full(layout.dim, prior.shared)
    shared[-1] = prior.shared_constant
    level = np.array([prior.interactions[kinds[column]] for column in layout.columns])
    return np.concatenate([shared, np.tile(level, layout.n_levels), np.full(layout.n_pairs, prior.pair)])


WORTH = 0.2
"""How much of its price a dearer level is expected to be worth in quality before anything is known, at most: in deviations of
the noise of the quality."""


def worth(prices: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    """Prior mean of the quality of a knob's levels, from what they cost.

    Prices are known after a handful of events, qualities are not; were all qualities taken to be equal meanwhile, the cheapest level
    would be taken until doubt wins. Where prices differ by little against what qualities may differ by, a dearer level is
    therefore expected to be worth its price; of a large difference only so much.

    Parameters
    ----------
    prices : float64 array (L,)
        Of the levels of one knob, in units of quality.
    most : float
        Above 0; the limit of what is expected.

    Returns
    -------
    float64 array (L,)
        ``most (1 - exp(-excess / most))`` for each level's excess over the cheapest.
    """
    return np.asarray(most * -np.expm1(-(prices - prices.min()) / most))
