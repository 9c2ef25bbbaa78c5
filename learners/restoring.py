"""How a learner of sums goes into its state, comes back from it, and begins again as it had begun."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from . import state
from .control import Control
from .inheritance import Inheritance, succeed
from .moments import Moments
from .packing import numbers_of, pack_learner
from .protocol import Place
from .revision import MAX_REVISIONS
from .spec import PolicySpec, digest

Float = NDArray[np.float64]


class Restorable(ABC):
    """The part of a `learners.policy_learner.PolicyLearner` that outlives the process; parameters and attributes as there."""

    control: Control
    moments: Moments

    def __init__(self, spec: PolicySpec, epoch: int = 1, began: Mapping[int, Place] | None = None) -> None:
        self.epoch = epoch
        self.began: dict[int, Place] = dict(began or {})
        self.sources: dict[int, Place] = dict(self.began)
        self.since = epoch
        self.applied_hash = 0
        self._version = 0
        self._inheritance = Inheritance()
        self._stand_under(spec)

    @property
    def version(self) -> int:
        """Rewards applied in this epoch."""
        return self._version

    @property
    def inherited(self) -> Float:
        """Sums (K, 2, W) that the epoch began with; empty when there are none."""
        return self._inheritance.sums

    @property
    def inherited_hash(self) -> str:
        """Hash of what the epoch rests on beside its rewards since it began, 16 hex digits; empty when that is nothing."""
        if self._inheritance:
            return self._inheritance.hash
        return "" if self.since == self.epoch else digest(["since", self.since])

    def _stand_under(self, spec: PolicySpec) -> None:
        """Take a spec's settings for what holds; what was learned stays as it is."""
        self.spec = spec
        weights = spec.reward.weights
        self._factors = np.array([weights.quality, -weights.cost, -weights.latency, -weights.failures])

    @abstractmethod
    def revise(self, spec: PolicySpec) -> bool:
        """Go on under the settings of a spec of the same lineage; returns whether they are others than before."""

    def heed(self, data: bytes, revision: int | None = None) -> None:
        """Begin as the learner of a state had begun, and change the settings where it did: for a replay.

        Parameters
        ----------
        data : bytes
            The state; what it has learned from rewards is not looked at.
        revision : int, optional
            The last revision to be repeated; all by default.
        """
        self.repeat_settings(data, revision)

    def repeat_settings(self, data: bytes, revision: int | None = None) -> None:
        """As `heed`, for a replay that is to come to something else: what else was on record about rewards is left out."""
        _, header, numbers = state.unpack(data)
        if "control" not in header:
            return
        self.since = header.get("since", self.epoch)
        revisions = header["control"]["revisions"]
        self.control.replay(revisions if revision is None else revisions[: revision + 1])
        self._stand_under(self.control.spec)
        if header["inherited"]:
            began = numbers_of(header, numbers, self.moments.width).inherited
            self._inherit(Inheritance(began.reshape(self.moments.sums.shape).copy(), header["wakes"]))

    def _inherit(self, inheritance: Inheritance) -> None:
        """Begin with what another epoch has learned."""
        self._inheritance = inheritance
        self.moments.sums[:] = inheritance.sums
        if inheritance.wakes:
            self.control.welcome()
            self.control.meet(inheritance.counts)

    def to_state(self) -> bytes:
        """All that is needed to go on after a restart, to the bit: sums, counters, provenance. See `learners.state`."""
        return pack_learner(self, self._inheritance.wakes)

    @classmethod
    def from_state(cls, spec: PolicySpec, data: bytes) -> Self:
        """Go on from a state, under the settings of the spec.

        When arms, features or reward components have changed since, the sums mean something else: the learner starts
        afresh in the next epoch, which begins where the state's provenance vector ends, so that no reward of the old
        epoch comes in twice. Of a change of arms alone it takes over what still holds (`learners.succession`).

        Raises
        ------
        learners.state.StateError
            When the bytes are damaged, of an unknown version, or another policy's.
        """
        origin, header, numbers = state.unpack(data)
        if origin.key != spec.key:
            raise state.StateError(f"the state is of policy {origin.key}, not of {spec.key}")
        revisions = header["control"]["revisions"] if "control" in header else []
        if origin.lineage != spec.lineage or len(revisions) > MAX_REVISIONS:
            learner = cls(spec, origin.epoch + 1, origin.sources)
            if spec.shards == 1 and header.get("columns") == spec.columns:
                inheritance = succeed(spec, learner.moments, header, numbers)
                if inheritance:
                    learner._inherit(inheritance)
            return learner
        learner = cls(spec, origin.epoch, origin.began)
        learner.sources = dict(origin.sources)
        learner.since = header.get("since", origin.epoch)
        held = numbers_of(header, numbers, learner.moments.width)
        learner.moments.sums.reshape(-1, learner.moments.width)[header["rows"]] = held.sums
        if "control" in header:
            if header["inherited"]:
                sums = held.inherited.reshape(learner.moments.sums.shape).copy()
                learner._inheritance = Inheritance(sums, header["wakes"])
                if header["wakes"]:
                    learner.control.meet(learner._inheritance.counts)
            learner.control.load(header["control"], held.pacing)
            learner._stand_under(learner.control.spec)
        learner._version = origin.version
        learner.applied_hash = header["applied_hash"]
        learner._resume(data)
        learner.revise(spec)
        return learner

    def _resume(self, data: bytes) -> None:  # noqa: B027 - most subclasses have nothing of their own
        """Take up what a subclass has put into the state, under the settings of that time."""
