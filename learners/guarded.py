"""A learner with a guard: any learner of the catalog, its snapshots in the stage that the guard has reached. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from steersman.snapshot import PolicySnapshot

from . import state
from .guard import Guard, Transition

if TYPE_CHECKING:
    from .policy_learner import LearnReport
    from .registry import Learner
    from .spec import PolicySpec

_FIELD = "guard"


class GuardedLearner:
    """Learns as the learner inside does, and lets the guard see every reward that was learned from, in order.

    Parameters
    ----------
    inner : Learner
        What learns.
    guard : Guard
        What says in which stage the policy is. It is part of the state, so the log of rewards gives it again.
    """

    def __init__(self, inner: Learner, guard: Guard) -> None:
        self.inner = inner
        self.guard = guard

    @classmethod
    def over(cls, spec: PolicySpec, inner: Learner, data: bytes | None = None) -> Learner:
        """The learner under the guard that the policy asks for, if any; going on from a state of the same epoch where given."""
        if spec.guard is None:
            return inner
        weight = spec.reward.weights.quality
        if data is None:
            return cls(inner, Guard(spec.guard, spec.name, weight))
        origin, header, _ = state.unpack(data)
        saved = header.get(_FIELD) if origin.lineage == spec.lineage else None
        return cls(inner, Guard.of(spec.guard, spec.name, weight, saved, inner.version))

    def __getattr__(self, name: str) -> Any:
        """Whatever else the learner inside has."""
        if name == "inner":  # not made yet
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def epoch(self) -> int:
        """Lineage."""
        return self.inner.epoch

    @property
    def began(self) -> dict[int, tuple[int, int]]:
        """Provenance vector at the start of the epoch."""
        return self.inner.began

    @property
    def sources(self) -> dict[int, tuple[int, int]]:
        """Provenance vector."""
        return self.inner.sources

    @property
    def version(self) -> int:
        """Rewards applied in this epoch."""
        return self.inner.version

    def learn_many(self, rewards: Sequence[Mapping[str, Any]]) -> LearnReport:
        """Apply rewards, in the order of their log."""
        version = self.inner.version
        report = self.inner.learn_many(rewards)
        for reward, outcome in zip(rewards, report.outcomes, strict=True):
            if outcome == "applied":
                version += 1
                self.guard.observe(reward, version)
        return report

    def take_transitions(self) -> list[Transition]:
        """Changes of stage since the last call."""
        taken, self.guard.transitions = self.guard.transitions, []
        return taken

    def merge(self, shard: Any) -> NoReturn:
        """Refuse: a guard has to see all rewards in one order.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError("a policy in shards has no guard")

    def snapshot(self, now_us: int) -> PolicySnapshot:
        """The policy as of now, in its stage; SnapshotError when it is not fit to be used."""
        stage, share = self.guard.published
        return replace(self.inner.snapshot(now_us), stage=stage, canary_share=share)

    def to_state(self) -> bytes:
        """The state of the learner inside, with the guard's in its header."""
        _, header, sums = state.unpack(self.inner.to_state())
        return state.pack({**header, _FIELD: self.guard.to_json()}, sums)

    @classmethod
    def from_state(cls, spec: PolicySpec, data: bytes) -> NoReturn:
        """Refuse: `learners.registry.restore_learner` knows which learner is inside.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError("restore_learner makes a guarded learner from its state")


def watched_since(data: bytes) -> int:
    """Version from which on the guard of a saved learner watches; 0 without a guard."""
    saved = state.unpack(data)[1].get(_FIELD)
    return int(saved["since"]) if saved else 0


def watch_as(learner: Learner, saved: bytes) -> None:
    """Let the guard of a fresh learner, if it has one, watch from the version on from which that of a saved state does."""
    if isinstance(learner, GuardedLearner):
        guard = learner.guard
        learner.guard = Guard(guard.settings, guard.policy, guard.quality_weight, watched_since(saved))
