"""Means that were declared before the first reward (`learners.prior_spec`), as prior means of the heads.

Only differences between levels are of consequence: a level's own constant is expected to be its declared mean less that of the
knob's declared levels, and the constant that all arms share what they are in the mean, which the first few rewards overrule. So it does
no harm that requests are harder than those of an evaluation set, as long as they are so for all levels. Of a knob's levels those that
are not declared are expected to be as the declared ones are in the mean, with the doubt that `learners.priors` has of any level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steersman.arms import ArmSpace, level_text
from steersman.layout import Layout

from .prior_spec import Expected, PriorSpec

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Declared:
    """Prior means.

    Attributes
    ----------
    mean : float64 array (D, 4)
        Of every head's parameters, in scales.
    known : bool array (D,)
        Constants of levels whose quality was declared.
    events : float
        What those are worth.
    """

    mean: Float
    known: NDArray[np.bool_]
    events: float

    @classmethod
    def make(cls, prior: PriorSpec, arms: ArmSpace, layout: Layout, scales: Float) -> Declared:
        """From what was declared, in units, and the heads' scales (4,)."""
        tables = (prior.quality, prior.cost_micro_usd, prior.latency_us)
        columns = [_means(table, arms, layout) for table in tables]
        nothing = np.zeros(layout.size)
        mean = np.stack([*(mean for mean, _ in columns), nothing], axis=1) / scales
        return cls(mean, columns[0][1], prior.events)

    def events_of_levels(self, layout: Layout) -> Float:
        """What the declared quality of each level is worth, (L,), in events; 0 where there is none."""
        at = layout.dim + len(layout.columns) * np.arange(1, layout.n_levels + 1) - 1
        return np.where(self.known[at], self.events, 0.0)

    def precision(self, given: Float) -> Float:
        """Prior precisions of the quality head, (D,), from those `given`."""
        return np.where(self.known, self.events, given)


def _means(table: Expected, arms: ArmSpace, layout: Layout) -> tuple[Float, NDArray[np.bool_]]:
    """Prior means (D,) of one head, and which levels' constants are declared."""
    mean, known = np.zeros(layout.size), np.zeros(layout.size, dtype=bool)
    m = len(layout.columns)
    start, bases = layout.dim, []
    for knob, levels in arms.knobs.items():
        declared = table.get(knob, {})
        base = sum(declared.values()) / max(len(declared), 1)
        for i, level in enumerate(levels):
            text = level_text(level)
            if text in declared:
                at = start + i * m + m - 1
                mean[at], known[at] = declared[text] - base, True
        if declared:
            bases.append(base)
        start += len(levels) * m
    if bases:
        mean[layout.dim - 1] = sum(bases) / len(bases)
    return mean, known
