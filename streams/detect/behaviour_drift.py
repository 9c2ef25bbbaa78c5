"""An arm that no longer behaves as it did: utility, cost or latency have shifted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from learners.detector_settings import BehaviourDriftSettings, DetectorSettings
from streams.detect.contract import Finding

SIGNALS: Final = ("utility", "cost", "latency")
_MAX_ARMS: Final = 4096
_KEPT: Final = ("_sum_increase", "_sum_decrease", "_min_increase", "_max_decrease")


class BehaviourDrift:
    """River's Page-Hinkley test on utility, cost and latency of every arm.

    The first rewards of an arm say what is normal: values are then counted from their mean, in their standard deviations (of cost
    and latency, whose tails are long, the logarithms). After a finding the arm starts afresh. Page-Hinkley rather than ADWIN
    since four numbers hold what it knows, and state has to be saved without pickle.

    References
    ----------
    E. S. Page (1954). Continuous inspection schemes. Biometrika 41.
    """

    name: ClassVar[str] = "behaviour_drift"
    severity: ClassVar[str] = "WARNING"

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings.behaviour_drift
        self._arms: dict[str, list[_Signal]] = {}

    def add(self, reward: Mapping[str, Any]) -> list[Finding]:
        """Take a reward in; see `streams.detect.contract.PolicyDetector`."""
        arm = reward["arm"]
        signals = self._arms.get(arm)
        if signals is None:
            if len(self._arms) >= _MAX_ARMS:
                return []
            signals = self._arms[arm] = [_Signal(self._settings) for _ in SIGNALS]
        utility = None if reward["quality_defaulted"] else reward["utility"]
        values = (utility, math.log1p(reward["cost_micro_usd"]), math.log1p(max(0, reward["latency_us"])))
        found = []
        for name, signal, value in zip(SIGNALS, signals, values, strict=True):
            shift = None if value is None else signal.add(value)
            if shift is not None:
                found.append(self._found(arm, name, *shift))
        return found

    def to_state(self) -> Any:
        """What is known of every arm's signals."""
        return {arm: [signal.to_state() for signal in signals] for arm, signals in self._arms.items()}

    def from_state(self, state: Any) -> None:
        """Take back what `to_state` gave."""
        self._arms = {arm: [_Signal(self._settings, one) for one in signals] for arm, signals in state.items()}

    def _found(self, arm: str, name: str, statistic: float, normal: float, now: float) -> Finding:
        if name != "utility":
            normal, now = math.expm1(normal), math.expm1(now)
        return Finding(
            statistic,
            self._settings.threshold,
            f"{name} of arm {arm or '(none)'} has shifted from about {normal:.4g} to about {now:.4g}: a model, tool or price behind it "
            "has changed, or what it is asked.",
            {"arm": arm, "signal": name, "before": normal, "after": now},
            f"{arm}/{name}",
        )


class _Signal:
    """One signal of one arm: first what is normal, then the test."""

    __slots__ = ("_after", "_mean", "_n", "_settings", "_spread", "_test")

    def __init__(self, settings: BehaviourDriftSettings, state: Any = None) -> None:
        self._settings = settings
        self._n, self._mean, self._spread, self._after = 0, 0.0, 0.0, 0.0
        self._test: Any = None
        if state is not None:
            self._n, self._mean, self._spread, self._after, test = state
            if test is not None:
                self._test = self._fresh()
                for name, value in zip(_KEPT, test, strict=True):
                    setattr(self._test, name, math.inf if value is None else value)

    def _fresh(self) -> Any:
        # Without forgetting, and around 0 instead of a running mean, which would follow a slow shift.
        from river.drift import PageHinkley  # brings scipy.stats along

        test: Any = PageHinkley(
            min_instances=0, delta=self._settings.slack, threshold=self._settings.threshold, alpha=1.0, mode="both"
        )
        test._x_mean = _Zero()
        return test

    def add(self, value: float) -> tuple[float, float, float] | None:
        """Take a value in; statistic, mean before and mean of late when it has shifted."""
        if self._test is None:
            self._n += 1
            gap = value - self._mean
            self._mean += gap / self._n
            self._spread += gap * (value - self._mean)
            if self._n >= self._settings.warm_up:
                self._test, self._after = self._fresh(), self._mean
            return None
        # A signal that never varied may still have its own rounding: a thousandth of the mean at least.
        deviation = max(math.sqrt(self._spread / self._n), 1e-3 * abs(self._mean), 1e-9)
        self._after += 0.1 * (value - self._after)
        # One value says little however far out it is.
        self._test.update(max(-4.0, min(4.0, (value - self._mean) / deviation)))
        if not self._test.drift_detected:
            return None
        test = self._test
        statistic = max(test._sum_increase - test._min_increase, test._max_decrease - test._sum_decrease)
        found = float(statistic), self._mean, self._after
        self._n, self._mean, self._spread, self._after, self._test = 0, 0.0, 0.0, 0.0, None
        return found

    def to_state(self) -> list[Any]:
        test = None
        if self._test is not None:
            held = [float(getattr(self._test, name)) for name in _KEPT]
            test = [value if math.isfinite(value) else None for value in held]
        return [self._n, self._mean, self._spread, self._after, test]


class _Zero:
    """Stands for the running mean of River's test: the values come counted from the mean of the warm-up."""

    n = 1 << 30

    def update(self, value: float) -> None:
        """Nothing to learn."""

    def get(self) -> float:
        """The mean of what is normal."""
        return 0.0
