"""A policy learned in shards: the shards, and the merger that adds them up and publishes the policy. Pure.

All parts of a policy are in one epoch, which they find when they start from what is published of the policy, before
their first reward: the published epoch when it is of their lineage, the next one when it is not. It never changes while
they run; who sees a higher one is superseded and needs a restart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from learners.acts import Act
from learners.lineage import Head
from learners.operated import OperatedLearner
from learners.outcome import Outcome
from learners.protocol import Learner
from learners.shard_keys import shard_key
from learners.shards import ByShard, Statistics, merge_shards, own_sources
from learners.spec import PolicySpec
from learners.state import Origin
from streams.held_learner import HeldLearner, LoadLearner, MakeLearner


class HeldShard(HeldLearner):
    """A learner of some source partitions' rewards. It publishes its statistics.

    Parameters
    ----------
    spec
        The policy.
    shard
        Number of the shard.
    make, load
        Make a fresh learner; make one from its state.
    """

    def __init__(self, spec: PolicySpec, shard: int, make: MakeLearner, load: LoadLearner) -> None:
        def make_own(spec: PolicySpec, epoch: int = 1, began: Mapping[int, tuple[int, int]] | None = None) -> Learner:
            # An old epoch may have had other shards: what they had read of others' source partitions is not ours.
            return make(spec, epoch, own_sources(began or {}, shard, spec.shards))

        def load_own(spec: PolicySpec, data: bytes) -> Learner:
            origin = Origin.of(data)
            if origin.lineage == spec.lineage:
                return load(spec, data)
            return make_own(spec, origin.epoch + 1, origin.sources)

        super().__init__(spec, make_own, load_own, shard_key(spec.key, shard))
        self._statistics: Statistics | None = None

    def look(self, head: Head | None, statistics: ByShard) -> bool:
        """Take note of what is published of the policy and of its shards; returns True when that silences this one."""
        lineage = self.spec.lineage
        own = self._statistics = statistics.get((self.item, lineage))
        due = 0 if head is None else head.epoch + (head.lineage != lineage)
        if own is not None and own.origin.epoch >= due:
            return self.see(Head(*own.rank, lineage, own.origin.sources, own.origin.began))
        if head is None:
            return False
        # Of this shard nothing is published in the policy's epoch.
        return self.see(Head(head.epoch, 0, lineage, {}) if head.lineage == lineage else head)

    def see(self, head: Head) -> bool:
        """As for any learner; but a saved state of an epoch before that of the policy gives way to a new epoch."""
        due = head.epoch + (head.lineage != self.spec.lineage)
        if self._saved and not self._used and due > self.learner.epoch:
            if not self._begun:
                self._retire(self.learner.epoch, self.learner.to_state())
            self._begun = True
            self._start(due, self.learner.sources)
        return super().see(head)

    def begin_log(self, offset: int) -> None:
        """As for any learner; but when the log has lost its beginning, go on from the published statistics."""
        if self._from_log and offset > 0 and self._statistics is not None:
            self.learner = self._load(self.spec, self._statistics.state)
            self._from_log = False
            self._dirty = self.unpublished = True
        super().begin_log(offset)

    def obey(self, acts: Sequence[tuple[int, Act]]) -> list[Outcome]:
        """Nothing: acts are the merger's to obey."""
        return []

    def _leave(self, head: Head) -> None:
        """Stay: an epoch of its own would take the shard out of the sum."""


class HeldMerger(HeldLearner):
    """The sum of a policy's shards. It publishes the policy, and learns from no reward itself.

    Parameters
    ----------
    spec
        The policy.
    make, load
        Make a fresh learner; make one from its state.
    """

    def __init__(self, spec: PolicySpec, make: MakeLearner, load: LoadLearner) -> None:
        def make_empty(spec: PolicySpec, epoch: int = 1, began: Mapping[int, tuple[int, int]] | None = None) -> Learner:
            # What was read before the epoch is for the shards to say: before they have, the sum knows of nothing.
            return make(spec, epoch)

        def load_sum(spec: PolicySpec, data: bytes) -> Learner:
            origin = Origin.of(data)
            if origin.lineage != spec.lineage:
                return OperatedLearner.over(spec, make(spec, origin.epoch + 1), data)
            whole, saved = make(spec, origin.epoch), load(spec, data)
            whole.merge(saved)
            return OperatedLearner.like(saved, whole, spec)

        super().__init__(spec, make_empty, load_sum)
        self._parts: dict[int, Statistics] = {}
        self._news = False

    def look(self, head: Head | None, statistics: ByShard) -> bool:
        """Take note of what is published of the policy and of its shards; returns True when that silences this one."""
        if head is not None and self.see(head):
            return True
        keys = {shard: (shard_key(self.spec.key, shard), self.spec.lineage) for shard in range(self.spec.shards)}
        found = {shard: statistics[key] for shard, key in keys.items() if key in statistics}
        epoch = max((one.origin.epoch for one in found.values()), default=0)
        if epoch > self.learner.epoch and self.superseded_by is None:
            self._start(epoch, {})  # nobody else knows any more: the policy topic was lost
        parts = {shard: one for shard, one in found.items() if one.origin.epoch == self.learner.epoch}
        self._news = self._news or parts != self._parts
        self._parts = parts
        return False

    def gather(self) -> None:
        """Add the shards up, if any has gone on since."""
        if not self._news or self.superseded_by is not None:
            return
        self._news = False
        before = self.learner
        whole = merge_shards(self.spec, before.epoch, {shard: one.state for shard, one in self._parts.items()})
        self.learner = OperatedLearner.like(before, whole, self.spec)
        # One version is published with one vector: what was only read, and taught nothing, waits for the next.
        self.unpublished = self.unpublished or self.learner.version != before.version
        self._dirty = self._dirty or self.unpublished or self.learner.sources != before.sources

    def begin_log(self, offset: int) -> None:
        """Nothing: the rewards of the partition are not its own."""
        self._used = True
        self._from_log = False
