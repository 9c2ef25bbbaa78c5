"""One policy's learner in a worker, and the epoch it is in. Pure.

An epoch belongs to one learner. A new one begins where the old one's provenance vector ends: when arms, features,
reward components or learner change, or when nothing is left from which the published one could be learned again. Two
learners of one policy at once (a deployment too many, a worker that hung for long) tell each other by what is
published: the one whose epoch is lower, or belongs to another lineage, is *superseded* and falls silent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from learners.acts import Act
from learners.lineage import Head, newest
from learners.operated import OperatedLearner
from learners.outcome import Outcome
from learners.protocol import Learner, LearnReport
from learners.quarantine import learned_under
from learners.shards import ByShard
from learners.spec import PolicySpec
from learners.state import Origin
from streams.relearning import Relearning, StartRelearning

KEPT_EPOCHS = 3
"""How many old epochs' last states are kept."""
_OLD = " @"


class MakeLearner(Protocol):
    """Makes a fresh learner."""

    def __call__(self, spec: PolicySpec, epoch: int = 1, began: Mapping[int, tuple[int, int]] | None = None) -> Learner:
        """See `learners.registry.make_learner`."""


class LoadLearner(Protocol):
    """Makes a learner from its state."""

    def __call__(self, spec: PolicySpec, data: bytes) -> Learner:
        """See `learners.registry.restore_learner`."""


def old_key(key: str, epoch: int) -> str:
    """State key under which a policy's last state of an old epoch is kept; no policy's name holds a space."""
    return f"{key}{_OLD}{epoch}"


def split_key(item: str) -> tuple[str, int | None]:
    """Policy key of a state item, and the old epoch that it is of; None for the present one."""
    key, mark, epoch = item.rpartition(_OLD)
    return (key, int(epoch)) if mark and epoch.isdigit() else (item, None)


class HeldLearner:
    """A learner and what is pending for it.

    Parameters
    ----------
    spec
        The policy.
    make, load
        Make a fresh learner; make one from its state.
    item
        Key of its state; the policy's unless told otherwise.
    relearn
        Learns the policy again, when who is in quarantine has changed; without it the next epoch begins with nothing.

    Attributes
    ----------
    wanted
        The policy as it is to be; `spec` is what its learner is under, which is another while it is learned again.
    item
        Key of its state.
    learner
        The learner.
    unpublished
        Whether it differs from the published snapshot.
    published_us
        Monotonic time of the last publication; unit: microseconds.
    urgent
        Whether what has changed is to be published at once.
    rejected_version
        Version of the last snapshot refused.
    superseded_by
        The head that silenced this learner, None while it is the policy's own.
    """

    def __init__(
        self,
        spec: PolicySpec,
        make: MakeLearner,
        load: LoadLearner,
        item: str = "",
        relearn: StartRelearning | None = None,
    ) -> None:
        self.spec = spec
        self.item = item or spec.key
        self.learner: Learner = make(spec)
        self.unpublished = True
        self.published_us: int | None = None
        self.urgent = False
        self.rejected_version = -1
        self.superseded_by: Head | None = None
        self.wanted = spec
        self._relearn = relearn
        self._relearning: Relearning | None = None
        self._make = make
        self._load = load
        self._head: Head | None = None
        self._dirty = False  # differs from the saved state
        self._saved = False  # there is a saved state
        self._begun = False  # the epoch began with this restart
        self._used = False  # something was learned or published since the restart
        self._unsettled = False  # changed by more than rewards since it was saved
        self._from_log = False  # to be learned again in the published epoch, if the log still has its beginning
        self._shown: object = None  # how a policy stood when it was published last, if it stands still
        self._created: tuple[tuple[int, int], int] = ((-1, -1), 0)  # of the last snapshot, and its rank
        self._told: set[str] = set()  # acts whose outcome was told since the restart
        self._old: dict[int, bytes] = {}
        self._old_dirty: dict[str, bytes | None] = {}

    # -- the epoch

    def restore(self, state: bytes) -> None:
        """Go on from a saved state, in the next epoch when it is of another lineage.

        When nothing has changed but who is in quarantine, go on as before for now, while it is learned again.
        """
        before = None if self._relearn is None else learned_under(self.spec, state)
        self.spec = before or self.spec
        self.learner = self._load(self.spec, state)
        self._saved = True
        origin = Origin.of(state)
        if self.learner.epoch == origin.epoch:
            if self.learner.to_state() != state:
                self._dirty = self._unsettled = self.unpublished = True
            if before is not None and self._relearn is not None:
                now = self.learner.to_state()
                self._relearning = self._relearn(self.wanted, now, self.learner.sources)
            return
        if self.spec is not self.wanted:
            self.spec = self.wanted
            self.learner = self._load(self.spec, state)
        self._unsettled = self.inherits
        self._begun = self._dirty = True
        self._retire(origin.epoch, state)

    def revise(self, spec: PolicySpec) -> None:
        """Go on under another spec of the policy: in this epoch, or in the next one when it is of another lineage."""
        self.close()
        self.spec = self.wanted = spec
        if self.superseded_by is None:
            self.unpublished = True
            self.published_us = None  # at once, and once more even if it is to be frozen
            self.restore(self.learner.to_state())

    @property
    def relearning(self) -> bool:
        """Whether it is being learned again, with others in quarantine than the learner in use has."""
        return self._relearning is not None

    def take_relearned(self) -> bool:
        """Go on with the learner that was learned again, if there is one by now; returns whether it does."""
        if self._relearning is None or self.superseded_by is not None:
            self.close()
            return False
        learner = self._relearning.take(self.learner.sources)
        if learner is None:
            return False
        self.close()
        self._retire(self.learner.epoch, self.learner.to_state())
        learner.revise(self.wanted)  # type: ignore[attr-defined]
        getattr(learner, "take_transitions", list)()  # they are on record since the first time
        self.learner, self.spec = OperatedLearner.like(self.learner, learner, self.wanted), self.wanted
        self._dirty = self._unsettled = self.unpublished = True
        self.published_us = None
        return True

    def close(self) -> None:
        """Stop learning again, if it does."""
        if self._relearning is not None:
            self._relearning.close()
            self._relearning = None

    @property
    def inherits(self) -> bool:
        """Whether the epoch began with something that the log of rewards does not hold."""
        learner = self.learner
        return len(getattr(learner, "inherited", ())) > 0 or getattr(learner, "since", learner.epoch) != learner.epoch

    @property
    def unsettled(self) -> bool:
        """Whether it must be saved before it may be published: nobody could make what it is from the log again."""
        return self._unsettled and self.superseded_by is None

    def keep(self, epoch: int, state: bytes) -> None:
        """Take note of an old epoch's state; to be called before `restore`."""
        self._old[epoch] = state

    def look(self, head: Head | None, statistics: ByShard) -> bool:
        """Take note of what is published of policy and shards; returns True when that silences this learner."""
        return head is not None and self.see(head)

    def see(self, head: Head) -> bool:
        """Take note of what is published; returns True when that silences this learner."""
        if self.superseded_by is not None or newest(self._head, head) == self._head:
            return False
        self._head = head = newest(self._head, head)
        ours = head.lineage == self.spec.lineage
        if not self._used and not self._saved:
            if ours and not head.from_log:
                self._start(head.epoch + 1, head.sources)  # what it began with, or when it changed, is lost
            elif ours and head.version == 0:
                self._start(head.epoch, head.sources)
            elif ours:
                self._start(head.epoch, head.began)
                self._from_log, self._dirty = True, False
            else:
                self._start(head.epoch + 1, head.sources)
            return False
        epoch = self.learner.epoch
        if head.epoch < epoch or (head.epoch == epoch and ours):
            return False
        if self._begun and not self._used and not ours:
            # The policies file has changed beyond what is published, too.
            self._start(head.epoch + 1, self.learner.began)
            return False
        self.superseded_by = head
        if self._begun and not self._used:
            self._dirty = False  # what is saved is the last state of an epoch that was ours
            self._old_dirty.clear()
        return True

    def begin_log(self, offset: int) -> None:
        """Be told the offset of the first reward read since the restart, whosever it is."""
        if self._from_log and offset > 0 and self._head is not None:
            # What made the published policy is gone, so it cannot be learned again under the same epoch.
            self._start(self._head.epoch + 1, self._head.sources)
        elif self._from_log:
            self._dirty, self._from_log = True, False
        self._used = True

    def _retire(self, epoch: int, state: bytes) -> None:
        """Keep the last state of an epoch that is over."""
        self._old[epoch] = state
        self._old_dirty[old_key(self.item, epoch)] = state
        for old in sorted(self._old)[:-KEPT_EPOCHS]:
            del self._old[old]
            self._old_dirty[old_key(self.item, old)] = None

    def _start(self, epoch: int, began: Mapping[int, tuple[int, int]]) -> None:
        self.learner = OperatedLearner.like(self.learner, self._make(self.spec, epoch, began), self.spec)
        self._from_log = self._unsettled = False
        self._dirty = self.unpublished = True

    # -- acts of operators

    def obey(self, acts: Sequence[tuple[int, Act]]) -> list[Outcome]:
        """Obey the acts that are new, in the order of the control topic; returns what became of them.

        Parameters
        ----------
        acts
            Offset in the control topic, and act.
        """
        learner = self.learner if isinstance(self.learner, OperatedLearner) else None
        due = [(offset, act) for offset, act in acts if learner is None or learner.is_new(act, offset)]
        if not due or self.superseded_by is not None:
            return []
        if learner is None:
            self.learner = learner = OperatedLearner(self.learner, self.spec)
        outcomes = [outcome for offset, act in due if (outcome := learner.obey(act, offset)) is not None]
        self._dirty = True
        if outcomes:
            # Nobody could tell from the rewards what it is now.
            self._unsettled = True
        if any(not one.reason for one in outcomes):
            self.unpublished = self.urgent = True
            self.published_us = self._shown = None  # at once, and once more even if it is to stand still
        return outcomes

    def untold(self, answered: Collection[str]) -> list[Outcome]:
        """Outcomes that are saved and that nobody has been told; `answered` are the acts whose outcome is on the topic."""
        if not isinstance(self.learner, OperatedLearner) or self.unsettled or self.superseded_by is not None:
            return []
        found = [o for o in self.learner.told if o.act_id not in answered and o.act_id not in self._told]
        self._told.update(one.act_id for one in found)
        return found

    @property
    def _stands(self) -> object:
        """How the policy stands, if it stands still: then nothing else about it is news."""
        learner = self.learner
        if not isinstance(learner, OperatedLearner) or not learner.standing.still:
            return None
        return (learner.epoch, learner.acts, *learner.stage)

    def stamp(self, now_us: int) -> int:
        """Time to be put on a snapshot: after acts later than that of any other of this version, for agents go by it."""
        if isinstance(self.learner, OperatedLearner):
            rank, last = self._created
            if self._head is not None and self._head.rank == self._rank:
                rank, last = self._rank, max(last if rank == self._rank else 0, self._head.created_at)
            now_us = max(now_us, last + 1) if rank == self._rank else now_us
        self._created = self._rank, now_us
        return now_us

    # -- work

    def learn(self, rewards: Sequence[Mapping[str, Any]]) -> LearnReport:
        """Learn from rewards, in the order of the log."""
        before = self.learner.version
        report = self.learner.learn_many(rewards)
        if self._relearning is not None:
            self._relearning.note(rewards)
        # Even a skipped reward may move the provenance vector, so the state counts as changed.
        self._dirty = self._used = True
        self.unpublished = self.unpublished or self.learner.version != before or report.applied > 0
        head = self._head
        if head is not None and (self.learner.epoch, before) <= head.rank < self._rank and not self._covers(head):
            # More rewards than the published one had, but not those: this is not the log that it was learned from.
            self._leave(head)
        return report

    def _leave(self, head: Head) -> None:
        """Go on in another log than that of the head."""
        self._start(head.epoch + 1, self.learner.sources)

    def gather(self) -> None:
        """Take up what others have learned, before something is published."""

    @property
    def may_publish(self) -> bool:
        """Whether its snapshot would be news; one below what is published would only hide that from newcomers."""
        held_back = self._unsettled or self._frozen or not self.learner.ready or self.relearning
        if not self.unpublished or held_back or self.superseded_by is not None:
            return False
        head = self._head
        return head is None or self._rank > head.rank or (self._rank == head.rank and self._covers(head))

    @property
    def _frozen(self) -> bool:
        """Whether the policy is to stay as it was published when it was frozen, pinned or retired."""
        guard, head = self.spec.guard, self._head
        stands = self._stands
        if stands is not None:
            return stands == self._shown or (
                head is not None and stands == (head.epoch, head.acts, head.stage, head.share)
            )
        if guard is None or not guard.freeze:
            return False
        return self.published_us is not None or (
            head is not None and head.stage == "FROZEN" and head.epoch == self.learner.epoch
        )

    @property
    def _rank(self) -> tuple[int, int]:
        return self.learner.epoch, self.learner.version

    def _covers(self, head: Head) -> bool:
        """Whether it has read all that the published one had."""
        sources = self.learner.sources
        return all(sources.get(partition, (-1, -1)) >= place for partition, place in head.sources.items())

    def publishes(self, monotonic_us: int) -> None:
        """Take note that it publishes now."""
        self.published_us = monotonic_us
        self._shown = self._stands
        self.unpublished = self.urgent = False
        self._used = True
        # What is published must be saved before the log moves on, or nobody could tell what it was made of.
        self._dirty = self._dirty or not self._saved

    def dump_dirty(self) -> dict[str, bytes | None]:
        """Return what differs from the saved state, old epochs first, so that none is ever overwritten unsaved."""
        if not self._dirty:
            return {}
        dumped = {**self._old_dirty, self.item: self.learner.to_state()}
        self._old_dirty.clear()
        self._dirty = self._unsettled = False
        self._saved = True
        return dumped
