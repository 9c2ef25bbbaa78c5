"""The brake for detectors of traces and decisions: how many of a policy's last decisions they hit.

One loop is an accident; a policy is stopped when its decisions are hit again and again. The rewards say who hit them
(`hits`), so this is a function of the log of rewards, as the detectors of policies are.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from learners.detector_settings import PENALTIES, DetectorSettings
from streams.detect.contract import Finding

_DECIDED: Final = ("LIVE", "CANARY")
_MOST_TRACES: Final = 20


class HitBrake:
    """Looks at the rewards of one policy.

    Parameters
    ----------
    settings : DetectorSettings
        ``brakes`` names the detectors that count; ``brake`` says how many hits are too many.
    """

    name: ClassVar[str] = "brake"
    severity: ClassVar[str] = "CRITICAL"

    def __init__(self, settings: DetectorSettings) -> None:
        self._names = frozenset(settings.brakes) & frozenset(PENALTIES)
        self._most = settings.brake.hits
        # Of each of the last decisions, who hit it, and in which trace: (names, trace id).
        self._last: deque[tuple[str, str]] = deque(maxlen=settings.brake.of)

    @property
    def idle(self) -> bool:
        """Whether no detector of traces is a brake."""
        return not self._names

    def add(self, reward: Mapping[str, Any]) -> list[Finding]:
        """Take the next reward in: only decisions that the policy made count, and after a finding the count begins anew."""
        if not self._names or reward["mode"] not in _DECIDED:
            return []
        hits = " ".join(name for name in reward["hits"].split() if name in self._names)
        self._last.append((hits, reward["trace_id"] if hits else ""))
        if not hits:
            return []
        hit = [one for one in self._last if one[0]]
        if len(hit) < self._most:
            return []
        by = Counter(name for names, _ in hit for name in names.split())
        of = len(self._last)
        self._last.clear()
        told = ", ".join(f"{name} {n}" for name, n in sorted(by.items()))
        return [
            Finding(
                len(hit), self._most, f"{len(hit)} of the last {of} decisions of {reward['policy']} were hit: {told}",
                {"trace_ids": [trace for _, trace in hit][-_MOST_TRACES:], "hits": dict(sorted(by.items())), "of": of, "brake": True},
            )
        ]  # fmt: skip

    def to_state(self) -> list[list[str]]:
        """What it remembers, JSON-ready."""
        return [list(one) for one in self._last]

    def from_state(self, state: Any) -> None:
        """Take back what `to_state` gave; ValueError or TypeError when it is not that."""
        self._last.extend((str(names), str(trace)) for names, trace in state)
