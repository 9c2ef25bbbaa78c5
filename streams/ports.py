"""What the trace stage needs to know about a policy, so that the stage depends on no file format.

`learners.policies.Policies` and `PolicySpec` satisfy these protocols.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol


class RewardRules(Protocol):
    """How the events of a trace become the reward of a decision."""

    @property
    def metric(self) -> str:
        """Metric of the feedback events that measure quality."""
        ...

    @property
    def aggregation(self) -> str:
        """How several feedback events become one quality: first, last, max or mean."""
        ...

    @property
    def default(self) -> float | None:
        """Quality when no feedback came in the window; None leaves the quality unknown."""
        ...

    @property
    def window_s(self) -> float:
        """Seconds after the decision during which feedback counts."""
        ...

    @property
    def settle_ms(self) -> int:
        """Milliseconds of event time to wait for stragglers once a trace looks complete."""
        ...

    @property
    def credit(self) -> str:
        """What a decision is charged with: subtree (its enclosing span's) or trace (everything)."""
        ...

    @property
    def penalties(self) -> Sequence[str]:
        """Detectors whose hits count as one failure each."""
        ...

    @property
    def quality_credit(self) -> str:
        """How feedback on the whole trace is credited: own, shared or difference."""
        ...

    @property
    def share(self) -> float:
        """Rule ``shared``: weight of a decision in the split."""
        ...

    @property
    def peers(self) -> Collection[str]:
        """Rule ``difference``: policies whose decisions in the same trace the reward names."""
        ...

    def utility(self, quality: float, cost_micro_usd: float, latency_us: float, failures: float) -> float:
        """Weighted sum of the components."""
        ...


class Arms(Protocol):
    """The arms of a policy."""

    def index(self, label: str) -> int:
        """Index of the arm with this label; ValueError when no arm has it."""
        ...

    def __len__(self) -> int:
        """Return the number of arms."""
        ...


class Features(Protocol):
    """The context encoding of a policy."""

    @property
    def dim(self) -> int:
        """Entries of the encoded context."""
        ...


class PolicyRules(Protocol):
    """One policy as the trace stage sees it."""

    @property
    def arms(self) -> Arms:
        """Allowed arms."""
        ...

    @property
    def features(self) -> Features:
        """Context encoding."""
        ...

    @property
    def reward(self) -> RewardRules:
        """Reward rules."""
        ...

    @property
    def is_peer(self) -> bool:
        """Whether another policy's rewards name the decisions of this one."""
        ...

    @property
    def reward_hash(self) -> str:
        """Hash of the reward rules, 16 hex digits."""
        ...


class PolicyBook(Protocol):
    """All policies, by tenant and name."""

    def get(self, tenant: str, policy: str) -> PolicyRules | None:
        """Look up one policy; None when there is none of that name."""
        ...
