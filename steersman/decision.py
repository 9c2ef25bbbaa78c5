"""What a router decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from steersman.arms import Level
from steersman.events import Mode


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision: the arm to use, and what a learner must know about how it came about.

    Attributes
    ----------
    arm : mapping of str to level
        Knob -> level, read-only; empty when there was neither a policy nor a baseline.
    label : str
        The arm as text.
    propensity : float
        Probability with which this arm was chosen, given what was eligible; 0 < p <= 1.
    decision_id : str
        ``<trace_id>-<span_id>``; all that feedback needs, from any process.
    policy : str
        The policy asked.
    policy_epoch, policy_version : int or None
        Of the snapshot used, None without one.
    mode : Mode
        How the arm came about.
    reason : str or None
        Why the mode is ``FALLBACK``.
    explored : bool
        Whether the arm is another than the one of the highest estimated utility.
    """

    arm: Mapping[str, Level]
    label: str
    propensity: float
    decision_id: str
    policy: str
    policy_epoch: int | None
    policy_version: int | None
    mode: Mode
    reason: str | None
    explored: bool

    @property
    def trace_id(self) -> str:
        """Trace of the decision."""
        return self.decision_id[:32]
