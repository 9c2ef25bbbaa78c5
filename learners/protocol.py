"""What a learning stage asks of a learner, and what it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from steersman.snapshot import PolicySnapshot

from .drift import Alarm
from .influence import Leaning
from .spec import PolicySpec

Place = tuple[int, int]
"""Provenance of a reward within its source partition: (source_offset, seq)."""


@dataclass(frozen=True)
class LearnReport:
    """What became of a batch of rewards.

    Attributes
    ----------
    applied : int
        Rewards learned from.
    duplicates : int
        Rewards dropped because their provenance was not above the highest seen.
    skipped : Counter of str
        Rewards not learned from, by reason: ``fallback``, ``no_features``, ``other_policy``, ``other_reward_spec``,
        ``other_epoch``, ``unknown_arm``, ``wrong_dims``, ``bad_features``, ``not_finite``.
    without_quality : int
        Of those applied, how many taught cost, latency and failures only.
    clipped : int
        Of those applied, how many had a cost or latency beyond the spec's clip.
    outcomes : sequence of str
        For each reward, in order: ``applied``, ``duplicate`` or ``skipped:<reason>``.
    alarms : sequence of (int, Alarm)
        Version at which the world was found to have changed, and what of it.
    unbelieved : Counter of str
        Of those applied, how many taught no quality although they have one, by reason: ``quarantined``, ``out_of_range``,
        ``too_far``, ``too_often``, ``too_odd``, ``trimmed``.
    unheard : set of int
        Which of the rewards, by their place in the batch, are ``quarantined`` or ``out_of_range``: nobody is to listen to those.
    leaning : sequence of (int, Leaning)
        Version at which a source was found to judge unlike the crowd, and which.
    """

    applied: int = 0
    duplicates: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    without_quality: int = 0
    clipped: int = 0
    outcomes: Sequence[str] = ()
    alarms: Sequence[tuple[int, Alarm]] = ()
    unbelieved: Counter[str] = field(default_factory=Counter)
    unheard: AbstractSet[int] = frozenset()
    leaning: Sequence[tuple[int, Leaning]] = ()


class Learner(Protocol):
    """What a learning stage asks of a learner."""

    def __init__(
        self, spec: PolicySpec, epoch: int = 1, began: Mapping[int, tuple[int, int]] | None = None
    ) -> None: ...

    @property
    def epoch(self) -> int:
        """Lineage."""
        ...

    @property
    def began(self) -> dict[int, tuple[int, int]]:
        """Provenance vector at the start of the epoch."""
        ...

    @property
    def sources(self) -> dict[int, tuple[int, int]]:
        """Provenance vector."""
        ...

    @property
    def version(self) -> int:
        """Rewards applied in this epoch."""
        ...

    @property
    def ready(self) -> bool:
        """Whether `snapshot` would return at once; nothing is published before."""
        ...

    def learn_many(self, rewards: Sequence[Mapping[str, Any]]) -> LearnReport:
        """Apply rewards, in the order of their log."""
        ...

    def merge(self, shard: Any) -> None:
        """Add what a learner of the same class has learned of the policy from other source partitions."""
        ...

    def snapshot(self, now_us: int) -> PolicySnapshot:
        """The policy as of now; SnapshotError when it is not fit to be used."""
        ...

    def to_state(self) -> bytes:
        """All that is needed to go on after a restart, as `learners.state.pack` makes it."""
        ...

    def heed(self, data: bytes, revision: int | None = None) -> None:
        """Before the first reward, be given the state that is to be made again, for what in it comes from no reward: what the epoch
        began with, and where its settings changed, up to a revision (all by default)."""
        ...

    def settle(self) -> None:
        """Make the changes of settings that are due at the end of a replay."""
        ...

    @classmethod
    def from_state(cls, spec: PolicySpec, data: bytes) -> Self:
        """A learner that goes on from a state, in a new epoch when the spec's lineage has changed."""
        ...
