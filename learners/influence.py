"""What one judgement, and one source of judgements, may do to a policy at most.

Quality is the one component that others report: a user, an evaluator, a client that lies. Each bound is a step of plain floats a
reward, so a replay takes the same steps:

- *A judgement* that is further than `delta` from what is expected in its context is not believed (a redescending estimator, of
  rejection point delta: Hampel et al., "Robust Statistics", 1986, 2.6): delta is six times the scale of the residuals, and never
  less than 1, so qualities between 0 and 1 are left alone. The scale is the residuals' 60 % quantile, found by stochastic
  approximation, which a minority cannot move far; a metric of another unit is believed after some ten judgements.
- *A source* may be believed half as often again as the middle source of the crowd has judged (the median, which a minority cannot
  move), and not at all while its judgements are twice as far from what is expected as those of the crowd: rare failures are
  everybody's, constant ones are a liar's. What else it says teaches cost, latency and failures, which are measured, and no
  quality. With fewer than 20 sources there is no crowd: those are the operator's own evaluators. Where a crowd comes soon, what
  was learned before it was one counts little from then on: until then, nobody could be held back. Sources listed as `trusted` are
  exempt, so is feedback that names no source.
- *A context* so far out that its leverage would be more than that of 25 ordinary ones is taken for less (Mallows' weights: the same book,
  6.3). So no reward moves the sums by more than a bound: the squared norm of its x counts 25 d at most.
- *Trimmed means*, where a policy asks for them: the `trim` of the judgements that are furthest from what is expected are not believed
  either (for bandits: L. Niss and A. Tewari, "What You See May Not Be What You Get", UAI 2020). For scores only: of judgements that are
  0 or 1 it would drop the rarer of the two.

And one alarm: a source whose judgements *lean*, all to one side of what is expected, is reported (`Leaning`). It may be right, so it is
believed all the same, until somebody puts it in quarantine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import mul
from typing import Any, NamedTuple

from steersman.fingerprint import hash64

CROWD = 20
"""Sources below which none is held back."""

MIDDLE, SHARE = 0.5, 1.5
"""A source is believed so many times as often as the source at this quantile of the crowd has judged."""

FREE = 2.0
"""Judgements of a source before it can be found odd."""

ODD = 2.0
"""Times the crowd's mean distance from what is expected beyond which a source is not believed."""

SOON = 10.0
"""Judgements a source, within which a crowd is one from the start: not evaluators of an operator who has got more and more of them."""

MAX_SOURCES = 1024
"""Sources remembered; beyond, those that said least are forgotten."""

MEMORY = 8192.0
"""Judgements remembered: then all counts are halved."""

LEAST, DEVIATIONS, MATERIAL = 30, 5.0, 0.5
"""Judgements before a source can be found leaning; how many of its standard errors, and crowd's mean distances, it must lean at least."""

LEAST_DELTA = 2.0
SCALES = 6.0
LEVERAGE = 25.0

_QUANTILE = 0.6
_LATEST = 500.0
_MOST = 1000  # counts beyond are alike
_FEW = 3  # sources, of which one can judge unlike the others
_SMALLEST = 1e-3
_NEARLY = 1.0 - 1e-9
_START = 0.3
_FAST, _SLOW = 0.5, 0.02
_WARM = 50
_DEVIATION = 1.2533  # of a normal distribution, in mean absolute deviations


class Leaning(NamedTuple):
    """A source that judges unlike the crowd.

    Attributes
    ----------
    source : str
        Its name.
    lean : float
        Mean of its judgements minus what was expected; unit: the metric's.
    crowd : float
        Mean distance of the others from what is expected; unit: the metric's.
    judgements : int
        That it has made.
    """

    source: str
    lean: float
    crowd: float
    judgements: int


class SourceShares:
    """How often each source was believed, and how far from what is expected it judges.

    Attributes
    ----------
    leaning : list of Leaning
        Sources found leaning that nobody has taken yet; each is found once, until it judges as others do again.
    met : bool
        Whether there has just come to be a crowd, soon after the first judgement; whoever takes note of it clears it.
    """

    def __init__(self) -> None:
        # Source -> judgements believed, judgements made, mean distance, mean residual, whether it leans.
        self._sources: dict[str, list[float]] = {}
        self.leaning: list[Leaning] = []
        self.met = False
        self._believed = 0.0
        self._distance = 0.0  # sum of the means
        self._crowd = _Quantile(MIDDLE)

    def doubt(self, source: str | None, residual: float, trusted: Iterable[str] = ()) -> str:
        """Why one more judgement of a source is not to be believed, empty when it is; counts it.

        Parameters
        ----------
        source : str or None
        residual : float
            The judgement minus what is expected; unit: the metric's.
        trusted : iterable of str
            Sources that are always believed.

        Returns
        -------
        str
            ``too_often``, ``too_odd`` or nothing.
        """
        if source is None or source in trusted:
            return ""
        distance = abs(residual)
        name = f"{hash64(source):016x}"  # users' names are not for the state
        if name not in self._sources:
            self._sources[name] = [0.0, 0.0, 0.0, 0.0, 0.0]
            self._crowd.add(0)
            self.met = len(self._sources) == CROWD and self._believed <= SOON * CROWD
        held = self._sources[name]
        believed, made, mean, lean, leans = held
        crowd = len(self._sources)
        why = ""
        if crowd >= CROWD:
            if not self._quota(believed):
                why = "too_often"
            elif made >= FREE and mean > ODD * max(self._distance / crowd, _SMALLEST):
                why = "too_odd"
        count = min(made + 1.0, _LATEST)
        moved = mean + (distance - mean) / count
        lean += (residual - lean) / count
        self._distance += moved - mean
        self._believed += not why
        self._crowd.move(int(made), int(made) + 1)
        if crowd >= _FEW and made + 1.0 >= LEAST:
            others = max((self._distance - moved) / (crowd - 1), _SMALLEST)
            limit = others * max(DEVIATIONS * _DEVIATION / math.sqrt(count), MATERIAL)
            if abs(lean) > limit and not leans:
                leans = 1.0
                self.leaning.append(Leaning(source, lean, others, int(made) + 1))
            elif abs(lean) < 0.5 * limit:
                leans = 0.0
        held[:] = [believed + (not why), made + 1.0, moved, lean, leans]
        if self._believed > MEMORY or crowd > MAX_SOURCES:
            self._forget()
        return why

    def in_quota(self, source: str | None, trusted: Iterable[str] = ()) -> bool:
        """Whether a source has not yet been believed more often than it may."""
        if source is None or source in trusted:
            return True
        held = self._sources.get(f"{hash64(source):016x}")
        return held is None or len(self._sources) < CROWD or self._quota(held[0])

    def _quota(self, believed: float) -> bool:
        return believed + 1.0 <= max(1.0, SHARE * self._crowd.value)

    def _forget(self) -> None:
        most = sorted(self._sources, key=lambda name: (-self._sources[name][1], name))[: MAX_SOURCES // 2]
        kept = set(most)
        self._sources = {
            name: [believed / 2.0, made / 2.0, *means]
            for name, (believed, made, *means) in self._sources.items()
            if name in kept
        }
        self._believed = math.fsum(one[0] for one in self._sources.values())
        self._distance = math.fsum(one[2] for one in self._sources.values())
        self._count()

    def _count(self) -> None:
        self._crowd = _Quantile(MIDDLE)
        for one in self._sources.values():
            self._crowd.add(int(one[1]))

    def dump(self) -> list[Any]:
        """Return all that `load` needs, JSON-ready."""
        return [self._believed, self._distance, list(self._sources.items())]

    def load(self, dumped: Sequence[Any]) -> None:
        """Inverse of `dump`."""
        self._believed, self._distance = dumped[:2]
        # States of before sources could lean have three numbers each.
        self._sources = {name: [*one, 0.0, 0.0][:5] for name, one in dumped[2]}
        self._count()


class _Quantile:
    """A quantile of small counts that change one at a time; a function of the counts alone, whatever their order.

    Parameters
    ----------
    share : float
        The quantile, in 0..1.

    Attributes
    ----------
    value : int
        The least count that at least that share of all do not exceed.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._of = [0] * (_MOST + 1)  # how many there are of each count
        self._n = self._below = self.value = 0

    def add(self, count: int) -> None:
        """One more."""
        count = min(count, _MOST)
        self._of[count] += 1
        self._n += 1
        self._below += count <= self.value
        self._settle()

    def move(self, old: int, new: int) -> None:
        """One of them changes."""
        old, new = min(old, _MOST), min(new, _MOST)
        self._of[old] -= 1
        self._of[new] += 1
        self._below += (new <= self.value) - (old <= self.value)
        self._settle()

    def _settle(self) -> None:
        wanted = self._share * self._n
        while self._below < wanted:
            self.value += 1
            self._below += self._of[self.value]
        while self.value > 0 and self._below - self._of[self.value] >= wanted:
            self._below -= self._of[self.value]
            self.value -= 1


class Clip:
    """Tells judgements that can be believed, by how far they are from what is expected."""

    def __init__(self) -> None:
        self._scale = _START
        self._n = 0
        self._edge = _START  # beyond which lie the judgements to be trimmed
        self._trimmed = 0  # judgements that it was found from

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
        step = _FAST if self._n < _WARM else _SLOW
        self._n += 1
        self._scale *= 1.0 + step * (_QUANTILE if beyond else _QUANTILE - 1.0)
        self._scale = max(self._scale, 1e-6)
        return min(max(residual, -delta), delta)

    def trims(self, residual: float, trim: float) -> bool:
        """Whether a residual is among the share `trim` of those furthest out; learns from it where that begins."""
        beyond = abs(residual) > self._edge
        warm = self._trimmed >= _WARM
        self._trimmed += 1
        self._edge = max(self._edge * (1.0 + (_SLOW if warm else _FAST) * (1.0 - trim if beyond else -trim)), 1e-6)
        return beyond and warm

    def dump(self) -> list[Any]:
        """Return all that `load` needs, JSON-ready."""
        return [self._scale, self._n, *([self._edge, self._trimmed] if self._trimmed else [])]

    def load(self, dumped: Sequence[Any]) -> None:
        """Inverse of `dump`."""
        self._scale, self._n = dumped[:2]
        self._edge, self._trimmed = dumped[2:] or (_START, 0)


def leverage_weight(x: Sequence[float]) -> float:
    """Weight of an event by its context (d,): 1 unless its squared norm is above 25 d."""
    limit = LEVERAGE * len(x)
    if math.hypot(*x) < _NEARLY * math.sqrt(limit):  # the quicker way, where the last bits do not matter
        return 1.0
    norm = sum(map(mul, x, x))
    return 1.0 if norm <= limit else limit / norm
