"""Whether the world has changed: River's detectors on the residuals of every level, and what follows from an alarm.

Detectors watch residuals, not qualities, so that other contexts and other choices are no drift: a small additive model (a mean
per arm, and one effect of the context for all arms by normalised least mean squares; steps 1 / n down to a floor) predicts
quality, log cost and log latency. Its residual, divided by its own scale, goes to one two-sided Page-Hinkley test (`river.drift.PageHinkley`: E. S. Page 1954) per
knob level and component. A level has many arms' events, so 162 joint arms are watched like 14 levels. A component that the policy
gives no weight and no ceiling raises no alarm: what decides nothing must not make a learner forget what does.

An alarm says that what was learned of a level is out of date. Then the arms with that level keep `KEPT` events' worth of
evidence, all others `KEPT_OTHERS`: what is cut off falls back to the prior, never below it. And for `WAKE` rewards exploration is
wider, for what has got better elsewhere shows only to those who look.

All of this is plain arithmetic in the order of the log, from rewards alone and without BLAS, so a replay gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import repeat
from operator import add, mul
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from river.drift import PageHinkley

Float = NDArray[np.float64]

KEPT, KEPT_OTHERS = 5.0, 60.0
"""Events' worth of evidence that an arm keeps after an alarm: of the level concerned, and any other."""

WAKE = 400
"""Rewards during which exploration is wider after an alarm or for new arms, falling off evenly."""

WIDER = 4.0
"""How many times as wide at first."""

FRESH, LIFTED = 300, 0.3
"""Rewards during which new arms are tried whatever is expected of them, and the probability shared by all arms for it at first:
what neighbours are tells little of a new model, and a narrow prior would keep it from being tried."""

KNOWN = 100
"""Tries of new levels after which they are known as well as any: each then ends a hundredth of the trial and of the wider exploration.
Else a level that all requests go to would be held back by doubts that its rewards have long settled."""

DELTA, THRESHOLD, LEAST = 0.25, 30.0, 30
"""Of the Page-Hinkley tests, in residual scales: a shift below `DELTA` is tolerated; one of a whole scale is noticed after about
40 rewards, of half a scale after about 120. False alarms: `python -m benchmarks adaptation`. (On normal residuals a one-sided test takes
some exp(2 DELTA THRESHOLD) / (2 DELTA^2) rewards to a false alarm: 26 million. With a threshold of 18 it is 65,000, and a reward goes
to six tests and more.)"""

COMPONENTS = (0, 1, 2)
"""Quality, cost, latency."""

_THIN = 4
_FIRST, _WARM = 30.0, 200
_OUTLIER = 6.0
_SCALE = 0.005
_STEP = 0.002
_SMALLEST = 0.02


class Alarm(NamedTuple):
    """What changed.

    Attributes
    ----------
    level : int
        Number of the knob level, in the order of the knobs.
    component : int
        0 quality, 1 cost, 2 latency.
    """

    level: int
    component: int


class DriftWatch:
    """Watches the levels of a policy.

    Parameters
    ----------
    levels : sequence of sequence of int
        For each arm, the numbers of its levels (numbered through all knobs).
    n_levels : int
    dim : int
        Entries of x, the constant included.
    """

    def __init__(self, levels: Sequence[Sequence[int]], n_levels: int, dim: int) -> None:
        self._levels = levels
        self._dim = dim
        self._weights = [[0.0] * dim for _ in COMPONENTS]  # the constant's stays 0
        self._means = [[0.0] * len(COMPONENTS) for _ in levels]
        self._counts = [0.0] * len(levels)
        self._n = 0
        self._scale = [0.3, 1.0, 1.0]
        self._detectors = [[_detector() for _ in COMPONENTS] for _ in range(n_levels)]

    def expect(self, x: Sequence[float], arm: int) -> list[float]:
        """Return what is expected of an arm: quality, log(1 + cost), log(1 + latency)."""
        (quality, cost, latency), mean = self._weights, self._means[arm]
        return [sum(map(mul, quality, x), mean[0]), sum(map(mul, cost, x), mean[1]), sum(map(mul, latency, x), mean[2])]

    def learn(
        self, x: Sequence[float], arm: int, residuals: Sequence[float | None], *, watched: Collection[int] = COMPONENTS
    ) -> Alarm | None:
        """Learn from residuals (None: not known), and show those of the components watched to the detectors of the arm's levels; the first alarm, if any."""
        count = self._counts[arm]
        self._counts[arm] = count + 1.0
        if not self._n:  # nothing is known of any arm
            self._means = [[0.0 if one is None else one for one in residuals] for _ in self._means]
        self._n += 1
        if self._n % _THIN == 0:
            self._learn_context(x, residuals)
        n = self._n
        step = max(1.0 / (count + 2.0), _STEP)
        rate = max(1.0 / (n + 10.0), _SCALE)
        if count < _FIRST or n < _WARM:
            watched = ()
        means, scales, levels = self._means[arm], self._scale, self._levels[arm]
        found: Alarm | None = None
        for component, residual in enumerate(residuals):
            if residual is None:
                continue
            means[component] += step * residual
            scale = scales[component]
            limit = _OUTLIER * scale
            cut = limit if residual > limit else -limit if residual < -limit else residual
            square = scale * scale
            square += rate * (cut * cut - square)
            root = math.sqrt(square)
            scales[component] = root if root > _SMALLEST else _SMALLEST
            if component not in watched:
                continue
            z = cut / scale
            for level in levels:
                detector = self._detectors[level][component]
                detector.update(z)  # type: ignore[no-untyped-call]
                if detector.drift_detected and found is None:
                    found = Alarm(level, component)
        if found is not None:
            self.begin_anew(found.level)
        return found

    def _learn_context(self, x: Sequence[float], residuals: Sequence[float | None]) -> None:
        d = self._dim
        norm = sum(map(mul, x, x)) - x[-1] * x[-1]
        if norm <= 0.0:
            return
        step = max(d / (self._n + 2.0 * d), _STEP) / (1.0 + norm)
        for component, residual in enumerate(residuals):
            if residual is None:
                continue
            gain = step * residual
            moved = list(map(add, self._weights[component], map(mul, repeat(gain), x)))
            moved[-1] = 0.0
            self._weights[component] = moved

    def begin_anew(self, level: int) -> None:
        """Expect less firmly what arms of a level do, and let all detectors start again."""
        self.renew(COMPONENTS)
        for arm, levels in enumerate(self._levels):
            if level in levels:
                self._counts[arm] = 0.0

    def renew(self, components: Collection[int]) -> None:
        """Let the detectors of some components start again."""
        for row in self._detectors:
            for component in components:
                row[component] = _detector()

    def dump(self) -> list[Any]:
        """Return all that `load` needs, JSON-ready."""
        detectors = [[_dump(detector) for detector in row] for row in self._detectors]
        return [self._n, self._weights, self._means, self._counts, self._scale, detectors]

    def load(self, dumped: Sequence[Any]) -> None:
        """Inverse of `dump`."""
        self._n, weights, means, counts, scale, detectors = dumped
        self._weights, self._means = [list(row) for row in weights], [list(row) for row in means]
        self._counts = list(counts)
        self._scale = list(scale)
        self._detectors = [[_load(state) for state in row] for row in detectors]


def targets_of(quality: float | None, cost_micro_usd: float, latency_us: float) -> tuple[float | None, float, float]:
    """What is watched of a reward: quality, log(1 + cost), log(1 + latency)."""
    return quality, math.log1p(max(cost_micro_usd, 0.0)), math.log1p(max(latency_us, 0.0))


def keeping(counts: Float, levels: NDArray[np.float64], level: int) -> Float:
    """Factors (K,) by which an alarm about a level shortens what is known of each arm.

    Parameters
    ----------
    counts : float64 array (K,)
        Events' worth of evidence per arm.
    levels : float64 array (K, L)
        1 where the arm has the level.
    """
    most = np.where(levels[:, level] > 0, KEPT, KEPT_OTHERS)
    return np.asarray(np.minimum(1.0, most / np.maximum(counts, 1.0)))


def _detector() -> PageHinkley:
    # Not above: it brings scipy.stats along, more than a second of CPU for who only reads policies.
    from river.drift import PageHinkley

    return PageHinkley(min_instances=LEAST, delta=DELTA, threshold=THRESHOLD, alpha=1.0, mode="both")


def _dump(detector: PageHinkley) -> list[Any]:
    """What River keeps of a Page-Hinkley test: its running mean, the two sums, and their extremes."""
    mean = detector._x_mean
    lowest = detector._min_increase
    return [
        mean.n, mean._mean, detector._sum_increase, detector._sum_decrease,
        None if math.isinf(lowest) else lowest, detector._max_decrease,
    ]  # fmt: skip


def _load(state: Sequence[Any]) -> PageHinkley:
    from river import stats

    detector = _detector()
    n, mean, increase, decrease, lowest, highest = state
    detector._x_mean = stats.Mean._from_state(n, mean)
    detector._sum_increase, detector._sum_decrease = increase, decrease
    detector._min_increase = math.inf if lowest is None else lowest
    detector._max_decrease = highest
    return detector
