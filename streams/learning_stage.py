"""Rewards in, policy snapshots out: the learners of one partition of the reward topic. Pure.

A policy's rewards all have the key ``tenant/policy``, so they are in one partition, and whoever owns the partition owns
the learner. Repeated rewards are the learner's business: it keeps the provenance of what it applied.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka.partitioner import murmur2

from learners.registry import Learner, make_learner, restore_learner
from learners.spec import Policies, PolicySpec
from steersman.errors import InvalidRecord, SnapshotError

MakeLearner = Callable[[PolicySpec], Learner]
LoadLearner = Callable[[PolicySpec, bytes], Learner]


@dataclass
class LearningOutput:
    """What came of a batch, or of the passing of time.

    Attributes
    ----------
    snapshots
        Policy snapshot records to publish.
    alerts
        Alert records.
    rejected
        (offset, why) of rewards that no learner can take.
    counters
        Counts for the metrics.
    """

    snapshots: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[tuple[int, InvalidRecord]] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)


@dataclass
class _Held:
    """A learner and what is pending for it."""

    spec: PolicySpec
    learner: Learner
    dirty: bool = False  # differs from the saved state
    unpublished: bool = True  # differs from the published snapshot
    rejected_version: int = -1  # version of the last snapshot refused
    published_us: int | None = None  # monotonic time of the last publication


US_PER_REWARD = 200
"""What a reward applied adds to the shortest time between two snapshots; unit: microseconds."""


def partition_of(key: str, partitions: int) -> int:
    """Return the partition of a record key, as Kafka's default partitioner (murmur2) has it."""
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % partitions)


class LearningStage:
    """The learners of one partition of the reward topic.

    Parameters
    ----------
    policies
        All policies; those whose key falls into this partition are held.
    partition, partitions
        Number of the partition, and how many there are.
    make, load
        Make a fresh learner; make one from its state.
    publish_interval_us, publish_interval_max_us
        Shortest time between two snapshots of one policy, and what it grows to with the rewards applied
        (`US_PER_REWARD` each): the more a policy has seen, the less a further reward moves it, while every snapshot costs
        every subscriber the same. A policy that was quiet for that long publishes at once. Unit: microseconds.
    """

    def __init__(
        self,
        policies: Policies,
        partition: int,
        partitions: int,
        *,
        make: MakeLearner = make_learner,
        load: LoadLearner = restore_learner,
        publish_interval_us: int = 100_000,
        publish_interval_max_us: int = 500_000,
    ) -> None:
        self.partition = partition
        self._load = load
        self._interval_us = publish_interval_us
        self._interval_max_us = max(publish_interval_us, publish_interval_max_us)
        self._held = {
            spec.key: _Held(spec, make(spec)) for spec in policies if partition_of(spec.key, partitions) == partition
        }

    def __len__(self) -> int:
        """Return how many learners are held."""
        return len(self._held)

    def process(
        self, rewards: Iterable[tuple[int, Mapping[str, Any]]], *, now_us: int, monotonic_us: int
    ) -> LearningOutput:
        """Learn from rewards, in offset order, and publish what is due.

        Parameters
        ----------
        rewards
            (offset, reward record) pairs.
        now_us
            Wall clock, stamped on snapshots; unit: microseconds since 1970-01-01 UTC.
        monotonic_us
            Monotonic clock, for the publishing interval; unit: microseconds.
        """
        output = LearningOutput()
        by_policy: dict[str, list[Mapping[str, Any]]] = {}
        for offset, reward in rewards:
            key = f"{reward['tenant']}/{reward['policy']}"
            if key in self._held:
                by_policy.setdefault(key, []).append(reward)
            else:
                why = InvalidRecord(
                    "unknown_policy", f"no policy {key} with partition {self.partition} in the policies file"
                )
                output.rejected.append((offset, why))
        for key, batch in by_policy.items():
            held = self._held[key]
            before = held.learner.version
            report = held.learner.learn_many(batch)
            output.counters["applied"] += report.applied
            output.counters["duplicates"] += report.duplicates
            for reason, count in report.skipped.items():
                output.counters[f"skipped_{reason}"] += count
            # Even a skipped reward may move the provenance vector, so the state counts as changed.
            held.dirty = True
            held.unpublished = held.unpublished or held.learner.version != before or report.applied > 0
        self._publish(output, now_us, monotonic_us)
        return output

    def due(self, *, now_us: int, monotonic_us: int) -> LearningOutput:
        """Publish what has become due with time: called often, does nothing mostly."""
        output = LearningOutput()
        self._publish(output, now_us, monotonic_us)
        return output

    def dump_dirty(self) -> dict[str, bytes | None]:
        """Return the state of every learner that changed since the last call, by policy key."""
        dirty: dict[str, bytes | None] = {}
        for key, held in self._held.items():
            if held.dirty:
                dirty[key] = held.learner.to_state()
                held.dirty = False
        return dirty

    def restore(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Take up saved learners; those of policies that have left the file are left alone, in case they return.

        Raises
        ------
        learners.state.StateError
            When a state is damaged or of another format version.
        """
        for key, state in items:
            held = self._held.get(key)
            if held is not None:
                held.learner = self._load(held.spec, state)

    def _publish(self, output: LearningOutput, now_us: int, monotonic_us: int) -> None:
        for held in self._held.values():
            if not held.unpublished:
                continue
            wait_us = min(max(self._interval_us, held.learner.version * US_PER_REWARD), self._interval_max_us)
            if held.published_us is not None and monotonic_us - held.published_us < wait_us:
                continue
            held.published_us = monotonic_us
            held.unpublished = False
            try:
                output.snapshots.append(held.learner.snapshot(now_us).to_record())
            except SnapshotError as error:
                output.counters["rejected_snapshots"] += 1
                if held.rejected_version != held.learner.version:
                    held.rejected_version = held.learner.version
                    output.alerts.append(_rejected_alert(held, error, now_us, self.partition))


def _rejected_alert(held: _Held, error: SnapshotError, now_us: int, partition: int) -> dict[str, Any]:
    identity = f"learner_rejected/{held.spec.key}/{held.learner.epoch}/{held.learner.version}"
    return {
        "alert_id": hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
        "tenant": held.spec.tenant,
        "ts": now_us,
        "detector": "learner_rejected",
        "severity": "CRITICAL",
        "policy": held.spec.name,
        "agent": "",
        "trace_id": "",
        "value": None,
        "threshold": None,
        "message": f"The learner of {held.spec.key} made no usable snapshot ({error}); agents keep the last good one. "
        "Look at its latest rewards, then reset or roll back the policy.",
        "evidence": json.dumps({"epoch": held.learner.epoch, "version": held.learner.version, "partition": partition}),
        "source_partition": -1,
        "source_offset": -1,
        "seq": 0,
    }
