"""What one judgement, and one source of judgements, may do to a policy at most.

Quality is the one component that others report: a user, an evaluator, a client that lies. Three bounds, each a step of plain
floats a reward, so a replay takes the same steps:

- *A judgement* that is further than `delta` from what is expected in its context is not believed (a redescending estimator, of
  rejection point delta: Hampel et al., "Robust Statistics", 1986, 2.6): delta is six times the scale of the residuals, and never
  less than 1, so qualities between 0 and 1 are left alone. The scale is the residuals' 60 % quantile, found by stochastic
  approximation, which a minority cannot move far; a metric of another unit is believed after some ten judgements.
- *A source* may be believed half as often again as a source of the crowd is in the mean, and not at all while its judgements are
  twice as far from what is expected as those of the crowd: rare failures are everybody's, constant ones are a liar's. What
  else it says teaches cost, latency and failures, which are measured, and no quality. With fewer than 20 sources there is no
  crowd: those are the operator's own evaluators. Sources listed as `trusted` are exempt, so is feedback that names no source.
- *A context* so far out that its leverage would be more than that of 25 ordinary ones is taken for less (Mallows' weights: the same book, 6.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import mul
from typing import Any

from steersman.fingerprint import hash64

CROWD = 20
"""Sources below which none is held back."""

SHARE = 1.5
"""Times the mean of the crowd that a source is believed."""

FREE = 2.0
"""Judgements of a source that are believed in any case."""

ODD = 2.0
"""Times the crowd's mean distance from what is expected beyond which a source is not believed."""

MAX_SOURCES = 1024
"""Sources remembered; beyond, those that said least are forgotten."""

MEMORY = 8192.0
"""Judgements remembered: then all counts are halved."""

LEAST_DELTA = 2.0
SCALES = 6.0
LEVERAGE = 25.0

_QUANTILE = 0.6
_LATEST = 500.0
_SMALLEST = 1e-3
_START = 0.3
_FAST, _SLOW = 0.5, 0.02


class SourceShares:
    """How often each source was believed, and how far from what is expected it judges."""

    def __init__(self) -> None:
        # Source -> judgements believed, judgements made, mean distance.
        self._sources: dict[str, list[float]] = {}
        self._believed = 0.0
        self._distance = 0.0  # sum of the means

    def believes(self, source: str | None, distance: float, trusted: Iterable[str] = ()) -> bool:
        """Whether one more judgement of a source is to be believed; counts it.

        Parameters
        ----------
        source : str or None
        distance : float
            How far it is from what is expected, >= 0; unit: the metric's.
        trusted : iterable of str
            Sources that are always believed.
        """
        if source is None or source in trusted:
            return True
        name = f"{hash64(source):016x}"  # users' names are not for the state
        held = self._sources.setdefault(name, [0.0, 0.0, 0.0])
        believed, made, mean = held
        crowd = len(self._sources)
        credible = crowd < CROWD or (
            self._quota(believed) and (made < FREE or mean <= ODD * max(self._distance / crowd, _SMALLEST))
        )
        moved = mean + (distance - mean) / min(made + 1.0, _LATEST)
        self._distance += moved - mean
        self._believed += credible
        held[:] = [believed + credible, made + 1.0, moved]
        if self._believed > MEMORY or crowd > MAX_SOURCES:
            self._forget()
        return credible

    def in_quota(self, source: str | None, trusted: Iterable[str] = ()) -> bool:
        """Whether a source has not yet been believed more often than it may."""
        if source is None or source in trusted:
            return True
        held = self._sources.get(f"{hash64(source):016x}")
        return held is None or len(self._sources) < CROWD or self._quota(held[0])

    def _quota(self, believed: float) -> bool:
        return believed + 1.0 <= max(FREE, SHARE * self._believed / len(self._sources))

    def _forget(self) -> None:
        most = sorted(self._sources, key=lambda name: (-self._sources[name][1], name))[: MAX_SOURCES // 2]
        kept = set(most)
        self._sources = {
            name: [believed / 2.0, made / 2.0, mean]
            for name, (believed, made, mean) in self._sources.items()
            if name in kept
        }
        self._believed = math.fsum(one[0] for one in self._sources.values())
        self._distance = math.fsum(one[2] for one in self._sources.values())

    def dump(self) -> list[Any]:
        """Return all that `load` needs, JSON-ready."""
        return [self._believed, self._distance, list(self._sources.items())]

    def load(self, dumped: Sequence[Any]) -> None:
        """Inverse of `dump`."""
        self._believed, self._distance = dumped[:2]
        self._sources = {name: list(one) for name, one in dumped[2]}


class Clip:
    """Tells judgements that can be believed, by how far they are from what is expected."""

    def __init__(self) -> None:
        self._scale = _START
        self._n = 0

    @property
    def delta(self) -> float:
        """How far from what is expected a quality may be; unit: the metric's."""
        return max(LEAST_DELTA, SCALES * self._scale)

    def residual(self, residual: float, *, learn: bool = True) -> float:
        """The residual, cut off at `delta`, beyond which it is not to be believed; learns their scale from it."""
        delta = self.delta
        if not learn:
            return min(max(residual, -delta), delta)
        beyond = abs(residual) > self._scale
        step = _FAST if self._n < 50 else _SLOW
        self._n += 1
        self._scale *= 1.0 + step * (_QUANTILE if beyond else _QUANTILE - 1.0)
        self._scale = max(self._scale, 1e-6)
        return min(max(residual, -delta), delta)

    def dump(self) -> list[Any]:
        """Return all that `load` needs, JSON-ready."""
        return [self._scale, self._n]

    def load(self, dumped: Sequence[Any]) -> None:
        """Inverse of `dump`."""
        self._scale, self._n = dumped


def leverage_weight(x: Sequence[float]) -> float:
    """Weight of an event by its context (d,): 1 unless its squared norm is above 25 d."""
    norm = sum(map(mul, x, x))
    limit = LEVERAGE * len(x)
    return 1.0 if norm <= limit else limit / norm
