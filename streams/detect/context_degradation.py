"""Quality that falls as the context window fills."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from learners.detector_settings import DetectorSettings
from streams.detect.contract import Finding

_FORGET: Final = 0.998
"""What a reward of before counts for after the next of its side, so that 500 or so count."""


class Moments:
    """Mean and variance that forget: weights, sum and sum of squares, each times `_FORGET` at a new value.

    Attributes
    ----------
    n, squares : float
        Sum of the weights and of their squares.
    mean, spread : float
        Weighted mean, and weighted sum of squared deviations from it.
    """

    __slots__ = ("mean", "n", "spread", "squares")

    def __init__(self, n: float = 0.0, squares: float = 0.0, mean: float = 0.0, spread: float = 0.0) -> None:
        self.n, self.squares, self.mean, self.spread = n, squares, mean, spread

    def add(self, value: float, forget: float = _FORGET) -> None:
        """Take a value in (West 1979, with weights)."""
        self.n = self.n * forget + 1.0
        self.squares = self.squares * forget * forget + 1.0
        gap = value - self.mean
        self.mean += gap / self.n
        self.spread = self.spread * forget + gap * (value - self.mean)

    @property
    def variance(self) -> float:
        """Variance of one value."""
        return max(0.0, self.spread / self.n) if self.n else 0.0

    @property
    def error(self) -> float:
        """Variance of the mean, for as many values as the weights are worth."""
        return self.variance * self.squares / (self.n * self.n) if self.n else math.inf

    def to_state(self) -> list[float]:
        """The four numbers."""
        return [self.n, self.squares, self.mean, self.spread]


class ContextDegradation:
    """Of one policy: decisions whose fullest context was above a share against those below another (Welch's test).

    Rewards in between, without a quality of their own or without a fill count on neither side. Found once, and again only after
    the difference has been gone.
    """

    name: ClassVar[str] = "context_degradation"
    severity: ClassVar[str] = "WARNING"

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings.context_degradation
        self._low, self._high = Moments(), Moments()
        self._told = False

    def add(self, reward: Mapping[str, Any]) -> list[Finding]:
        """Take a reward in; see `streams.detect.contract.PolicyDetector`."""
        settings, fill, quality = self._settings, reward.get("context_fill"), reward["quality"]
        if fill is None or quality is None or reward["quality_defaulted"]:
            return []
        if fill < settings.low:
            self._low.add(quality)
        elif fill > settings.high:
            self._high.add(quality)
        else:
            return []
        low, high = self._low, self._high
        if min(low.n, high.n) < settings.least:
            return []
        gap, error = low.mean - high.mean, math.sqrt(low.error + high.error)
        if gap < settings.drop or gap < settings.sigmas * error:
            self._told = self._told and gap >= settings.drop / 2
            return []
        if self._told:
            return []
        self._told = True
        return [
            Finding(
                gap,
                settings.drop,
                f"quality is {high.mean:.3g} where the context window is more than {settings.high:.0%} full, and {low.mean:.3g} where it "
                f"is less than {settings.low:.0%}: lower the levels of the knobs that fill it.",
                {"quality_low": low.mean, "quality_high": high.mean, "standard_error": error, "n_low": low.n, "n_high": high.n},
            )
        ]  # fmt: skip

    def to_state(self) -> Any:
        """Moments of both sides."""
        return [self._low.to_state(), self._high.to_state(), self._told]

    def from_state(self, state: Any) -> None:
        """Take back what `to_state` gave."""
        low, high, told = state
        self._low, self._high, self._told = Moments(*low), Moments(*high), bool(told)
