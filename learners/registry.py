"""Learners by name, from `learners.catalog`.

A learner is a class with the constructor and methods of `learners.policy_learner.PolicyLearner` (the `Learner`
protocol). It is imported when a policy first asks for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from steersman.errors import ConfigError
from steersman.snapshot import PolicySnapshot

from .catalog import LEARNERS
from .guarded import GuardedLearner

if TYPE_CHECKING:
    from .policy_learner import LearnReport
    from .spec import PolicySpec


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


def learner_class(name: str) -> type[Learner]:
    """The learner of this name; what follows a colon in it is the learner's own. ConfigError lists the names when there is none."""
    known = LEARNERS.get(name.partition(":")[0])
    if known is None:
        raise ConfigError(f"no learner is called {name!r}; the learners are {', '.join(sorted(LEARNERS))}")
    module, _, attribute = known.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"learner = {name!r} needs {error.name}, which is not installed here: pip install 'steersman[neural]' where the "
            "workers run"
        ) from error
    return cast("type[Learner]", getattr(found, attribute))


def make_learner(spec: PolicySpec, epoch: int = 1, began: Mapping[int, tuple[int, int]] | None = None) -> Learner:
    """A fresh learner for a policy, in an epoch that began after the rewards up to `began`; under its guard, if it has one."""
    return GuardedLearner.over(spec, learner_class(spec.learner)(spec, epoch, began))


def restore_learner(spec: PolicySpec, data: bytes) -> Learner:
    """A policy's learner, from its state."""
    return GuardedLearner.over(spec, learner_class(spec.learner).from_state(spec, data), data)
