"""A policy learned again from the reward topic: its only learner, or every shard from its own rewards, and their sum."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from console.output import err
from learners.lineage import Rebuild, Vector
from learners.operated import OperatedLearner
from learners.protocol import Learner
from learners.shards import merge_shards, own_sources
from learners.spec import PolicySpec
from steersman.codec import Codec, SchemaIds
from steersman.errors import DecodeError, SteersmanError
from streams.learning_stage import partition_of
from streams.partition_log import PartitionLog

_CHUNK = 1000
_PROGRESS = 20_000


class LogCut(SteersmanError):
    """The log no longer holds what a policy was made of."""


class Part:
    """A policy's only learner, or one of its shards.

    Parameters
    ----------
    spec
        The policy.
    shard
        Number of the shard; 0 for the only learner.
    epoch
        The epoch.
    began
        Provenance vector of the part at the start of the epoch.
    upto
        By name, the provenance vectors at which it is wanted; those of the whole policy are cut down to the shard's.
    saved
        Its saved state, which says what it began with, when its settings changed and whatever else comes from no reward.
    revisions, acts
        By the same names, the last change of settings, and of how many acts of operators, to be repeated, where it is not all.

    Attributes
    ----------
    rebuilds
        By the same names, what it has learned up to there.
    """

    def __init__(
        self,
        spec: PolicySpec,
        shard: int,
        epoch: int,
        began: Vector,
        upto: Mapping[str, Vector],
        saved: bytes | None = None,
        revisions: Mapping[str, int] | None = None,
        acts: Mapping[str, int] | None = None,
    ) -> None:
        last, most = revisions or {}, acts or {}
        self.rebuilds = {
            name: Rebuild(
                spec, epoch, began, own_sources(vector, shard, spec.shards), saved, last.get(name), most.get(name)
            )
            for name, vector in upto.items()
        }


def merged(
    spec: PolicySpec, epoch: int, parts: Sequence[Rebuild], saved: bytes | None = None, acts: int | None = None
) -> Learner:
    """Add up what a policy held of its shards; of one whose sources are not in its vector it had heard nothing yet.

    Acts of operators (so many of them, all by default) are obeyed as a saved state of the sum says.
    """
    whole = merge_shards(spec, epoch, {k: one.learner.to_state() for k, one in enumerate(parts) if one.upto})
    return whole if saved is None else OperatedLearner.placed(spec, whole, saved, acts)


class RewardTopic:
    """The log of rewards.

    Parameters
    ----------
    brokers, topic, partitions
        Where, and how many partitions it has.
    registry
        Schema registry, None for none.

    Attributes
    ----------
    read
        Records read.
    unplaced
        Rewards passed over because they have no provenance.
    cut
        First offset still held of each partition read by `rewards` that has lost its beginning.
    """

    def __init__(self, brokers: str, topic: str, partitions: int, registry: SchemaIds | None = None) -> None:
        self._registry = registry
        self.read = self.unplaced = 0
        self.cut: dict[int, int] = {}
        self._brokers = brokers
        self._topic = topic
        self._partitions = partitions

    def rewards(self, keys: Collection[str]) -> Iterator[dict[str, Any]]:
        """Records of the partitions in which these keys are, each partition in the order of its log."""
        for partition in sorted({partition_of(key, self._partitions) for key in keys}):
            log = PartitionLog(self._brokers, self._topic, partition)
            yield from self._rewards(log)
            if log.begin > 0:
                self.cut[partition] = log.begin

    def _rewards(self, log: PartitionLog) -> Iterator[dict[str, Any]]:
        codec = Codec("reward", registry=self._registry)
        for record in log:
            self.read += 1
            if self.read % _PROGRESS == 0:
                err.print(f"{self.read} rewards read", highlight=False)
            try:
                yield codec.decode(record.value, record.headers)
            except DecodeError:
                continue  # a dead letter, then as now

    def feed(self, parts: Mapping[str, Part]) -> None:
        """Give each part, by its key, the partition that holds its rewards; LogCut when that is cut off."""
        by_partition: dict[int, list[Rebuild]] = {}
        for key, part in parts.items():
            by_partition.setdefault(partition_of(key, self._partitions), []).extend(part.rebuilds.values())
        for partition, rebuilds in sorted(by_partition.items()):
            self._feed(partition, rebuilds)
            self.unplaced += rebuilds[0].unplaced

    def _feed(self, partition: int, rebuilds: Sequence[Rebuild]) -> None:
        """Give a partition to the rebuilds until they are where they should be."""
        log = PartitionLog(self._brokers, self._topic, partition)
        chunk: list[dict[str, Any]] = []

        def hand_over() -> bool:
            for one in rebuilds:
                if not one.complete:
                    one.feed(chunk)
            chunk.clear()
            return all(one.complete for one in rebuilds)

        for reward in self._rewards(log):
            chunk.append(reward)
            if len(chunk) >= _CHUNK and hand_over():
                break
        hand_over()
        if log.begin > 0 and (missing := sorted({p for one in rebuilds for p in one.cut_off()})):
            raise LogCut(
                f"{self._topic}, partition {partition}, begins at offset {log.begin}: rewards of source partition "
                f"{', '.join(map(str, missing))} from the beginning of the epoch are gone, so the policy cannot be rebuilt. Its "
                "saved state is all there is; keep rewards longer (retention.ms of the topic) if you want to be able to check it"
            )
