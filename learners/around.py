"""A learner around another one, which learns: whatever it does not do itself, the one inside does. Pure."""

from __future__ import annotations

from typing import Any

from .protocol import Learner


class LearnerAround:
    """Base of `learners.guarded.GuardedLearner` and `learners.operated.OperatedLearner`.

    Parameters
    ----------
    inner : Learner
        What learns.
    """

    def __init__(self, inner: Learner) -> None:
        self.inner = inner

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

    @property
    def ready(self) -> bool:
        """Whether a snapshot can be made at once."""
        return self.inner.ready
