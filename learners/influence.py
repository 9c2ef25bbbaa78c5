"""What one judgement, and one source of judgements, may do to a policy at most.

Quality is the one component that others report: a user, an evaluator, a client that lies. Three bounds, each a step of plain
floats a reward, so a replay takes the same steps:

- *A judgement* is pulled to within `delta` of what is expected in its context (Huber, "Robust Estimation of a Location
  Parameter", 1964): delta is four times the scale of the residuals, and never less than 1, so qualities between 0 and 1 are
  left alone. The scale is the residuals' 80 % quantile, found by stochastic approximation, which a minority cannot move far.
- *A source* may be believed twice as often as a source of the crowd is in the mean. What it says beyond teaches cost, latency
  and failures, which are measured, and no quality. With fewer than 20 sources there is no crowd: those are the operator's own
  evaluators. Sources listed as `trusted` are exempt, so is feedback that names no source.
- *A context* so far out that its leverage would be more than that of 25 ordinary ones is taken for less (Mallows' weights:
  Hampel et al., "Robust Statistics", 1986, 6.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from steersman.fingerprint import hash64

CROWD = 20
"""Sources below which none is held back."""

SHARE = 2.0
"""Times the mean of the crowd that a source is believed."""

FREE = 5.0
"""Judgements of a source that are believed in any case."""

MAX_SOURCES = 1024
"""Sources remembered; beyond, those that said least are forgotten."""

MEMORY = 8192.0
"""Judgements remembered: then all counts are halved."""

LEAST_DELTA = 1.0
SCALES = 4.0
LEVERAGE = 25.0

_QUANTILE = 0.8
_START = 0.3
_FAST, _SLOW = 0.5, 0.02


class SourceShares:
    """How often each source was believed."""

    def __init__(self) -> None:
        self._counts: dict[str, float] = {}
        self._total = 0.0

    def believes(self, source: str | None, trusted: Iterable[str] = ()) -> bool:
        """Whether one more judgement of a source is to be believed; counts it when it is."""
        if source is None or source in trusted:
            return True
        name = f"{hash64(source):016x}"  # users' names are not for the state
        count = self._counts.get(name, 0.0)
        crowd = len(self._counts)
        if crowd >= CROWD and count + 1.0 > max(FREE, SHARE * self._total / crowd):
            return False
        self._counts[name] = count + 1.0
        self._total += 1.0
        if self._total > MEMORY or len(self._counts) > MAX_SOURCES:
            self._forget()
        return True

    def _forget(self) -> None:
        halved = {name: count / 2.0 for name, count in self._counts.items() if count >= 1.0}
        if len(halved) > MAX_SOURCES // 2:
            most = sorted(halved, key=lambda name: (-halved[name], name))[: MAX_SOURCES // 2]
            halved = {name: halved[name] for name in halved if name in set(most)}
        self._counts = halved
        self._total = float(sum(halved.values()))

    def dump(self) -> list[Any]:
        """Return all that `load` needs, JSON-ready."""
        return [self._total, list(self._counts.items())]

    def load(self, dumped: Sequence[Any]) -> None:
        """Inverse of `dump`."""
        self._total = dumped[0]
        self._counts = dict(dumped[1])


class Clip:
    """Pulls judgements to what can be believed."""

    def __init__(self) -> None:
        self._scale = _START
        self._n = 0

    @property
    def delta(self) -> float:
        """How far from what is expected a quality may be; unit: the metric's."""
        return max(LEAST_DELTA, SCALES * self._scale)

    def residual(self, residual: float) -> float:
        """A residual within `delta`; learns their scale from it."""
        delta = self.delta
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
    norm = sum([value * value for value in x])
    limit = LEVERAGE * len(x)
    return 1.0 if norm <= limit else limit / norm
