"""What a policy's epoch rests on beside the rewards since it began: sums of the epoch before, where they still mean something."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .moments import Moments
from .packing import moments_of
from .spec import PolicySpec
from .succession import take_over

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Inheritance:
    """Sums that an epoch began with.

    Attributes
    ----------
    sums : float64 array (K, 2, W)
        As of `learners.moments.Moments`; empty where the epoch began with nothing.
    wakes : bool
        Whether some arms were new.
    """

    sums: Float = field(default_factory=lambda: np.zeros(0))
    wakes: bool = False

    def __bool__(self) -> bool:
        """Whether there is any."""
        return len(self.sums) > 0

    @property
    def counts(self) -> Float:
        """Events' worth of evidence per arm, float64 (K,)."""
        return np.asarray(self.sums[:, :, -1].sum(axis=1))

    @property
    def hash(self) -> str:
        """16 hex digits; empty when there is none."""
        return hashlib.sha256(self.sums.tobytes()).hexdigest()[:16] if self else ""


def succeed(spec: PolicySpec, moments: Moments, header: Mapping[str, Any], numbers: Float) -> Inheritance:
    """Put what holds of the epoch before into empty sums.

    Parameters
    ----------
    spec : PolicySpec
        Of the new epoch.
    moments : Moments
        Its sums, which are changed.
    header, numbers
        Of the old epoch's state (`learners.state.unpack`).
    """
    arms, old = moments_of(header, numbers, moments.dim)
    before = header["control"]["revisions"][-1][1]["prices"]
    fresh = take_over(spec.arms, moments, arms, old.sums, before, spec.prices)
    return Inheritance(moments.sums.copy(), bool(fresh)) if moments.sums.any() else Inheritance()
