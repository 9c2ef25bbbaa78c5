"""One arm that takes all, though nothing says that it should."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from learners.detector_settings import DetectorSettings
from streams.detect.context_degradation import Moments
from streams.detect.contract import Finding

_MODES: Final = frozenset({"LIVE", "CANARY"})
_MAX_ARMS: Final = 4096
_LEAST: Final = 20
_SIGMAS: Final = 4.0


class FeedbackCollapse:
    """A policy that confirms itself: of its latest decisions nearly all are of one arm, and

    - the others are not tried any more: the logged probability of all other arms together has gone to nothing; or
    - it is not the best: the mean utility of another arm is higher, and surely so.

    A policy that has found its best arm keeps to its floor of exploration and is neither. Decisions that had no choice (one
    eligible arm, fallback, holdout, shadow) do not count, and a policy with one arm never does.
    """

    name: ClassVar[str] = "feedback_collapse"
    severity: ClassVar[str] = "CRITICAL"

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings.feedback_collapse
        self._arms: dict[str, Moments] = {}
        self._recent: deque[tuple[str, float]] = deque()  # arm, probability of all others
        self._taken: dict[str, int] = {}
        self._told = ""

    def add(self, reward: Mapping[str, Any]) -> list[Finding]:
        """Take a reward in; see `streams.detect.contract.PolicyDetector`."""
        arm = reward["arm"]
        if reward["mode"] not in _MODES or len(reward["eligible"]) == 1:
            return []
        if reward["utility"] is not None and not reward["quality_defaulted"]:
            held = self._arms.get(arm)
            if held is None and len(self._arms) < _MAX_ARMS:
                held = self._arms[arm] = Moments()
            if held is not None:
                held.add(reward["utility"])
        recent, taken = self._recent, self._taken
        recent.append((arm, 1.0 - reward["propensity"]))
        taken[arm] = taken.get(arm, 0) + 1
        if len(recent) > self._settings.window:
            old, _ = recent.popleft()
            taken[old] -= 1
            if not taken[old]:
                del taken[old]
        if len(recent) < self._settings.window:
            return []
        most = max(taken, key=lambda one: (taken[one], one))
        share = taken[most] / len(recent)
        if share < self._settings.share:
            self._told = ""
            return []
        if self._told == most:
            return []
        exploring = sum(others for one, others in recent if one == most) / taken[most]
        finding = self._starved(most, share, exploring) or self._unearned(most, share)
        if finding is None:
            return []
        self._told = most
        return [finding]

    def to_state(self) -> Any:
        """Moments of the arms, and the latest decisions with their arms by number."""
        arms = sorted({arm for arm, _ in self._recent} | self._arms.keys())
        number = {arm: place for place, arm in enumerate(arms)}
        return [
            arms,
            [self._arms[arm].to_state() if arm in self._arms else None for arm in arms],
            [[number[arm], others] for arm, others in self._recent],
            self._told,
        ]

    def from_state(self, state: Any) -> None:
        """Take back what `to_state` gave."""
        arms, moments, recent, told = state
        self._arms = {arm: Moments(*one) for arm, one in zip(arms, moments, strict=True) if one is not None}
        self._recent = deque((arms[number], others) for number, others in recent)
        self._taken = {}
        for arm, _ in self._recent:
            self._taken[arm] = self._taken.get(arm, 0) + 1
        self._told = str(told)

    def _starved(self, arm: str, share: float, exploring: float) -> Finding | None:
        if exploring >= self._settings.exploring:
            return None
        return Finding(
            share,
            self._settings.share,
            f"arm {arm or '(none)'} took {share:.0%} of the last {len(self._recent)} decisions and the others are not tried any more (their "
            f"probability is {exploring:.2g}): give the policy its floor of exploration back.",
            {"arm": arm, "share": share, "exploring": exploring, "why": "starved"},
            arm,
        )

    def _unearned(self, arm: str, share: float) -> Finding | None:
        own = self._arms.get(arm)
        if own is None:
            return None
        for other in sorted(self._arms):
            held = self._arms[other]
            if other == arm or held.n < _LEAST or own.n < _LEAST:
                continue
            gap = held.mean - own.mean
            deviation = math.sqrt((held.variance + own.variance) / 2)
            if gap > self._settings.worse * deviation and gap > _SIGMAS * math.sqrt(held.error + own.error):
                return Finding(
                    share,
                    self._settings.share,
                    f"arm {arm or '(none)'} took {share:.0%} of the last {len(self._recent)} decisions though {other} is worth more "
                    f"({held.mean:.3g} against {own.mean:.3g}): the learner does not follow its rewards; roll the policy back.",
                    {"arm": arm, "share": share, "utility": own.mean, "better": other, "its_utility": held.mean, "why": "unearned"},
                    arm,
                )  # fmt: skip
        return None
