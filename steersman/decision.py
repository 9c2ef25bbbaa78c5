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


class _Draft:
    """A decision that is being filled in.

    Setting the ten fields of a frozen dataclass takes four times as long as setting those of a plain class and then
    saying what it is, which Python allows where the slots are the same.
    """

    __slots__ = (
        "arm", "decision_id", "explored", "label", "mode", "policy", "policy_epoch", "policy_version", "propensity", "reason",
    )  # fmt: skip

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


def decided(
    arm: Mapping[str, Level],
    label: str,
    propensity: float,
    decision_id: str,
    policy: str,
    policy_epoch: int | None,
    policy_version: int | None,
    mode: Mode,
    reason: str | None,
    explored: bool,
) -> Decision:
    """Make a `Decision`, faster than it makes itself."""
    draft = _Draft()
    draft.arm = arm
    draft.label = label
    draft.propensity = propensity
    draft.decision_id = decision_id
    draft.policy = policy
    draft.policy_epoch = policy_epoch
    draft.policy_version = policy_version
    draft.mode = mode
    draft.reason = reason
    draft.explored = explored
    made: object = draft
    made.__class__ = Decision
    return made  # type: ignore[return-value]
