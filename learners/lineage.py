"""Where a policy comes from: what is published of it, and the same learner again from the log of rewards. Pure.

An *epoch* is one lineage of a policy: arms, features, reward components and learner as they were when it began, and all
rewards since. Inside an epoch the version is the number of rewards applied, so (epoch, version) names one state of the
learner, and the log of rewards gives that state again, to the bit: `rebuild`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pydantic import ValidationError

from steersman.features import FeatureSpec

from .operated import OperatedLearner
from .protocol import Learner
from .registry import make_learner
from .spec import PolicySpec, lineage_of

Vector = Mapping[int, tuple[int, int]]
"""Source partition -> (source_offset, seq) of the last reward read."""

_CHUNK = 1000


@dataclass(frozen=True)
class Head:
    """What the policy topic says about a policy: its highest published version.

    Attributes
    ----------
    epoch, version : int
        The highest (epoch, version) seen.
    lineage : str
        Lineage to which the epoch belongs: that of the first snapshot seen in it. Empty when a record cannot tell.
    sources : mapping
        Provenance vector of the highest version.
    began : mapping
        Provenance vector at the start of the epoch, where it is known: the policy topic does not say.
    from_log : bool
        Whether rewards alone make it: the epoch took nothing over, and its settings have not changed since it began.
    stage : str
        Stage of the highest version, as last published.
    share : float
        Its canary share.
    acts : int
        How many acts of operators it had obeyed.
    created_at : int
        When it was made; unit: microseconds since 1970-01-01 UTC.
    """

    epoch: int
    version: int
    lineage: str
    sources: Vector
    began: Vector = field(default_factory=dict)
    from_log: bool = True
    stage: str = ""
    share: float = 1.0
    acts: int = 0
    created_at: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        """Order of what is published."""
        return self.epoch, self.version


def head_of(record: Mapping[str, Any]) -> Head:
    """Read a decoded snapshot record; its weights are not looked at."""
    try:
        features = FeatureSpec.model_validate_json(record["feature_spec"])
        arms = {"knobs": record["knobs"], "forbidden": record["forbidden"]}
        lineage = lineage_of(record["reward_spec"], features, arms, record["learner"])
    except ValidationError:
        lineage = ""  # of a later version of this program
    from_log = not record["revision"] and not record["inherited"] and not record["acts"]
    return Head(
        record["epoch"],
        record["version"],
        lineage,
        vector_of(record),
        from_log=from_log,
        stage=record["stage"],
        share=record["canary_share"],
        acts=record["acts"],
        created_at=record["created_at"],
    )


def vector_of(record: Mapping[str, Any]) -> dict[int, tuple[int, int]]:
    """Provenance vector of a decoded snapshot record."""
    return {source["partition"]: (source["offset"], source["seq"]) for source in record["applied_sources"]}


def newest(held: Head | None, seen: Head) -> Head:
    """The higher of two heads, `held` having been seen first: an epoch belongs to whoever published in it first."""
    if held is None or seen.epoch > held.epoch:
        return seen
    if seen.rank > held.rank:
        return replace(seen, lineage=held.lineage)
    if seen.rank == held.rank and (seen.acts, seen.created_at) >= (held.acts, held.created_at):
        # Of one version, only how it stands may have changed.
        return replace(
            held,
            from_log=held.from_log and seen.from_log,
            stage=seen.stage,
            share=seen.share,
            acts=seen.acts,
            created_at=seen.created_at,
        )
    return held


class Rebuild:
    """A fresh learner that is taught what another one had read when it stood at a provenance vector.

    Parameters
    ----------
    spec : PolicySpec
        As it was in that epoch.
    epoch : int
    began, upto : mapping
        Provenance vectors of the other learner when its epoch began, and where to stop.
    saved : bytes, optional
        Its saved state, for what in it comes from no reward (`learners.protocol.Learner.heed`).
    revision, acts : int, optional
        The last change of settings, and of how many acts, to be repeated; all by default.

    Attributes
    ----------
    learner : Learner
        The learner so far.
    upto : dict
        Where to stop.
    unplaced : int
        Rewards passed over because they have no provenance: nobody can tell on which side of the vector they were.
    """

    def __init__(
        self,
        spec: PolicySpec,
        epoch: int,
        began: Vector,
        upto: Vector,
        saved: bytes | None = None,
        revision: int | None = None,
        acts: int | None = None,
    ) -> None:
        self.learner: Learner = make_learner(spec, epoch, began)
        if saved is not None:
            self.learner = OperatedLearner.replayed(spec, self.learner, saved, acts)
            self.learner.heed(saved, revision)
        self.unplaced = 0
        self._key = (spec.tenant, spec.name)
        self._began = began
        self.upto = dict(upto)
        self._first: dict[int, tuple[int, int]] = {}
        self._settle()

    def _settle(self) -> None:
        if self.complete:
            self.learner.settle()

    def feed(self, rewards: Iterable[Mapping[str, Any]]) -> None:
        """Go on in the log: rewards in its order, repeats and other policies' included."""
        wanted = []
        for reward in rewards:
            if (reward["tenant"], reward["policy"]) != self._key:
                continue
            partition, place = reward["source_partition"], (reward["source_offset"], reward["seq"])
            if partition < 0:
                self.unplaced += 1
                continue
            self._first.setdefault(partition, place)
            if partition in self.upto and place <= self.upto[partition]:
                wanted.append(reward)
        self.learner.learn_many(wanted)
        self._settle()

    @property
    def complete(self) -> bool:
        """Whether the vector has been reached; what follows in the log can only be repeats."""
        return self.learner.sources == self.upto

    def cut_off(self) -> list[int]:
        """Source partitions of which a log that has lost its beginning may lack rewards of this epoch."""
        return [
            partition
            for partition, place in self.upto.items()
            if place > self._began.get(partition, (-1, -1))
            and (partition not in self._first or self._first[partition] > self._began.get(partition, (-1, -1)))
        ]


def rebuild(
    spec: PolicySpec,
    epoch: int,
    began: Vector,
    rewards: Iterable[Mapping[str, Any]],
    upto: Vector,
    saved: bytes | None = None,
    revision: int | None = None,
    acts: int | None = None,
) -> Learner:
    """Learn a policy again from the log of rewards, up to a provenance vector.

    Parameters
    ----------
    spec : PolicySpec
        As it was in that epoch.
    epoch : int
    began : mapping
        Provenance vector at the start of the epoch, {} for the first; `learners.state.Origin` holds it.
    rewards : iterable of mapping
        Reward records in the order of their log, from its beginning; repeats and other policies' are passed over.
    upto : mapping
        Where to stop: the vector of a saved state, or the ``applied_sources`` of a snapshot.
    saved, revision, acts
        As in `Rebuild`.

    Returns
    -------
    Learner
        ``to_state()`` equals the saved state at that vector to the bit, and so do the bytes of ``snapshot(created_at)``,
        the time when it was made being the one field that does not come from rewards.
    """
    made = Rebuild(spec, epoch, began, upto, saved, revision, acts)
    log = iter(rewards)
    while not made.complete and (chunk := list(islice(log, _CHUNK))):
        made.feed(chunk)
    return made.learner


def digest(data: bytes) -> str:
    """SHA-256 of a state or of a policy record, as text."""
    return hashlib.sha256(data).hexdigest()


def differing_fields(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the fields in which two decoded snapshot records differ; tensors by their own names."""
    names = [name for name in one if name != "tensors" and one[name] != other.get(name)]
    held = {t["name"]: (t["shape"], t["data"]) for t in one["tensors"]}
    others = {t["name"]: (t["shape"], t["data"]) for t in other["tensors"]}
    return names + [name for name in sorted({*held, *others}) if held.get(name) != others.get(name)]
