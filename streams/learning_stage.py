"""Rewards in, policy snapshots out: the learners of one partition of the reward topic. Pure.

A policy's rewards all have the key ``tenant/policy``, so they are in one partition, and whoever owns the partition owns
the learner. Repeated rewards are the learner's business: it keeps the provenance of what it applied.

Of a policy with shards, the key is ``tenant/policy#k``, the learner of each shard publishes its statistics, and whoever
owns the partition of ``tenant/policy`` adds them up (`streams.held_shard`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.partitioner import murmur2

from learners.detector_settings import DetectorSettings
from learners.guard import LIVE
from learners.lineage import Head
from learners.policies import Policies
from learners.registry import make_learner, restore_learner
from learners.shard_keys import shard_key
from learners.shards import NO_STATISTICS, ByShard
from learners.spec import PolicySpec
from steersman.errors import InvalidRecord, SnapshotError
from streams.brakes import brake_act, standing_of
from streams.control import NO_ACTS, ControlLog, outcome_record
from streams.detect.policy_watch import KEY_PREFIX as DETECT_PREFIX
from streams.detect.policy_watch import PolicyWatch
from streams.guard_alerts import guard_alert
from streams.held_learner import HeldLearner, LoadLearner, MakeLearner, split_key
from streams.held_shard import HeldMerger, HeldShard
from streams.learner_alerts import drift_alert, leaning_alert, rejected_alert, relearned_alert, superseded_alert
from streams.ledger import STATE_KEY as LEDGER_KEY
from streams.ledger import LedgerBook
from streams.relearning import StartRelearning


@dataclass
class LearningOutput:
    """What came of a batch, or of the passing of time.

    Attributes
    ----------
    snapshots
        Policy snapshot records to publish.
    statistics
        Shard key and statistics of shards to publish.
    alerts
        Alert records.
    acts
        Records of what became of acts.
    rejected
        (offset, why) of rewards that no learner can take.
    counters
        Counts for the metrics.
    save
        Whether something waits for being saved before it is published.
    """

    snapshots: list[dict[str, Any]] = field(default_factory=list)
    statistics: list[tuple[str, bytes]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    acts: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[tuple[int, InvalidRecord]] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    save: bool = False


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
        All policies; those whose key falls into this partition are held, and of those with shards each shard whose does.
    partition, partitions
        Number of the partition, and how many there are.
    make, load
        Make a fresh learner; make one from its state.
    publish_interval_us, publish_interval_max_us
        Shortest time between two snapshots of one policy, and what it grows to with the rewards applied
        (`US_PER_REWARD` each): the more a policy has seen, the less a further reward moves it, while every snapshot costs
        every subscriber the same. A policy that was quiet for that long publishes at once. Unit: microseconds.
    detectors
        Thresholds of the detectors of policies; without it none runs.
    relearn
        Learns a policy again when who is in quarantine has changed (`streams.relearning`).
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
        detectors: DetectorSettings | None = None,
        relearn: StartRelearning | None = None,
    ) -> None:
        self.partition = partition
        self._ledger = LedgerBook("learn", partition)
        self._counted = False  # since the last dump
        self._reading = False  # a reward has been read since the restart
        self._silenced: list[HeldLearner] = []  # of which nobody has been told yet
        self._interval_us = publish_interval_us
        self._interval_max_us = max(publish_interval_us, publish_interval_max_us)
        self._policies = policies
        self._counters: Counter[str] = Counter()
        self._watch = None if detectors is None else PolicyWatch(detectors, partition, self._counters, self._brake)
        self._pulled: list[dict[str, Any]] = []  # acts of brakes that are still to be written
        self._braking: dict[str, str] = {}  # key of a policy -> the last act that a brake has asked for
        self._generation = policies.generation
        self._partitions = partitions
        self._make, self._load, self._relearn = make, load, relearn
        self._control = NO_ACTS
        self._held: dict[str, HeldLearner] = {}
        for spec in policies:
            self._hold(spec)

    def _hold(self, spec: PolicySpec) -> None:
        """Hold what of a policy falls into this partition."""
        if partition_of(spec.key, self._partitions) == self.partition:
            if spec.shards == 1:
                self._held[spec.key] = HeldLearner(spec, self._make, self._load, relearn=self._relearn)
            else:
                self._held[spec.key] = HeldMerger(spec, self._make, self._load)
        for shard in range(spec.shards) if spec.shards > 1 else ():
            item = shard_key(spec.key, shard)
            if partition_of(item, self._partitions) == self.partition:
                self._held[item] = HeldShard(spec, shard, self._make, self._load)

    def revise(self) -> bool:
        """Go on under the policies as they are now, if they have changed since; returns whether they have."""
        if self._policies.generation == self._generation:
            return False
        self._generation = self._policies.generation
        for spec in self._policies:
            known = [held for held in self._held.values() if held.spec.key == spec.key]
            if not known:
                self._hold(spec)
            for held in known:
                if held.wanted != spec:
                    held.revise(spec)
        return True

    def __len__(self) -> int:
        """Return how many learners are held."""
        return len(self._held)

    def process(
        self, rewards: Sequence[tuple[int, int, Mapping[str, Any] | None]], *, now_us: int, monotonic_us: int
    ) -> LearningOutput:
        """Learn from rewards, in offset order, and publish what is due.

        Parameters
        ----------
        rewards
            Kafka offset, Kafka timestamp of the record (microseconds since 1970-01-01 UTC, zero or less without one) and
            reward record, None for one that could not be decoded.
        now_us
            Wall clock, stamped on snapshots; unit: microseconds since 1970-01-01 UTC.
        monotonic_us
            Monotonic clock, for the publishing interval; unit: microseconds.
        """
        output = LearningOutput()
        if rewards and not self._reading:
            self._reading = True
            for held in self._held.values():
                held.begin_log(rewards[0][0])
        self._take_relearned(output, now_us)
        by_policy: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
        outcomes: dict[int, str] = {}
        for offset, _, reward in rewards:
            if reward is None:
                continue
            key = self._policies.reward_key(reward["tenant"], reward["policy"], reward["source_partition"])
            if key in self._held:
                by_policy.setdefault(key, []).append((offset, reward))
            elif self._policies.get(reward["tenant"], reward["policy"]) is not None:
                # Written when the policy had another number of shards: of the epoch before.
                output.counters["skipped_other_shard"] += 1
                outcomes[offset] = "skipped:other_shard"
            else:
                why = InvalidRecord(
                    "unknown_policy", f"no policy {key} with partition {self.partition} in the policies file"
                )
                output.rejected.append((offset, why))
                outcomes[offset] = "rejected:unknown_policy"
        for key, batch in by_policy.items():
            held = self._held[key]
            if held.superseded_by is not None:
                output.counters["skipped_superseded"] += len(batch)
                outcomes.update((offset, "skipped:superseded") for offset, _ in batch)
                continue
            report = held.learn([reward for _, reward in batch])
            _tell_transitions(held, output)
            outcomes.update((offset, outcome) for (offset, _), outcome in zip(batch, report.outcomes, strict=True))
            output.alerts += [drift_alert(held, version, alarm, now_us) for version, alarm in report.alarms]
            output.counters["drift"] += len(report.alarms)
            output.alerts += [leaning_alert(held, version, source, now_us) for version, source in report.leaning]
            for reason, count in report.unbelieved.items():
                output.counters[f"unbelieved_{reason}"] += count
            output.counters["applied"] += report.applied
            output.counters["duplicates"] += report.duplicates
            for reason, count in report.skipped.items():
                output.counters[f"skipped_{reason}"] += count
        self._account(rewards, outcomes)
        self._detect(rewards, outcomes, output)
        self._publish(output, now_us, monotonic_us)
        return output

    def _detect(
        self,
        rewards: Sequence[tuple[int, int, Mapping[str, Any] | None]],
        outcomes: Mapping[int, str],
        output: LearningOutput,
    ) -> None:
        """Show the rewards that were applied to the detectors, in the order of the log."""
        if self._watch is None:
            return
        for offset, _, reward in rewards:
            if reward is not None and outcomes[offset] == "applied":
                key = self._policies.reward_key(reward["tenant"], reward["policy"], reward["source_partition"])
                output.alerts += self._watch.add(key, offset, reward)
        output.acts += self._pulled
        self._pulled.clear()
        output.counters.update(self._counters)
        self._counters.clear()

    def _brake(self, key: str, alert: Mapping[str, Any]) -> None:
        """Ask for a rollback of the policy that a brake is about: as of any act, the control topic keeps the order."""
        held = self._held[key]
        pending = self._braking.get(key)
        if pending is not None and all(act.act_id != pending for _, act in self._control.acts.get(held.spec.key, ())):
            return  # it is on its way to the topic and back
        # A shard does not know how the policy stands: its merger says, when it reads the act.
        act = brake_act(alert, LIVE if isinstance(held, HeldShard) else standing_of(held.learner))
        if act is not None:
            self._braking[key] = act["act_id"]
            self._pulled.append(act)
            self._counters["brakes"] += 1

    def _account(
        self, rewards: Sequence[tuple[int, int, Mapping[str, Any] | None]], outcomes: Mapping[int, str]
    ) -> None:
        """Put on record what became of each reward, in the order of the log."""
        self._counted = self._counted or bool(rewards)
        for offset, record_ts_us, reward in rewards:
            self._ledger.begin(offset, record_ts_us)
            if reward is None:
                self._ledger.unreadable()
                continue
            outcome, _, reason = outcomes[offset].partition(":")
            self._ledger.count(
                outcome,
                reward["decision_id"],
                reward["cost_micro_usd"],
                tenant=reward["tenant"],
                policy=reward["policy"],
                reason=reason,
            )

    def due(self, *, now_us: int, monotonic_us: int) -> LearningOutput:
        """Publish what has become due with time: called often, does nothing mostly."""
        output = LearningOutput()
        self._take_relearned(output, now_us)
        self._publish(output, now_us, monotonic_us)
        return output

    def _take_relearned(self, output: LearningOutput, now_us: int) -> None:
        """Go on with the policies that have been learned again."""
        for held in self._held.values():
            if held.relearning and held.take_relearned():
                output.counters["relearned"] += 1
                output.alerts.append(relearned_alert(held, now_us))

    def close(self) -> None:
        """End what runs beside the stage; what was not taken over begins anew with the next owner."""
        for held in self._held.values():
            held.close()

    def audit(self) -> list[dict[str, Any]]:
        """Ledger entries changed since the last call, as records of ``ledger.avsc``; deliver them before the state."""
        return self._ledger.entries()

    def dump_dirty(self) -> dict[str, bytes | None]:
        """Return the state of every learner that changed since the last call, by policy key, and that of old epochs.

        The ledger and the detectors come first: what is written in part is skipped in a replay, by them as well as by the learners.
        """
        dirty: dict[str, bytes | None] = {LEDGER_KEY: self._ledger.dump()} if self._counted else {}
        self._counted = False
        if self._watch is not None:
            dirty.update(self._watch.dump_dirty())
        for held in self._held.values():
            dirty.update(held.dump_dirty())
        return dirty

    def restore(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Take up saved learners; those of policies that have left the file are left alone, in case they return.

        Raises
        ------
        learners.state.StateError
            When a state is damaged or of another format version.
        """
        current: list[tuple[HeldLearner, bytes]] = []
        for item, state in items:
            if item == LEDGER_KEY:
                self._ledger.restore(state)
                continue
            if item.startswith(DETECT_PREFIX):
                if self._watch is not None:
                    self._watch.restore(item, state)
                continue
            key, epoch = split_key(item)
            held = self._held.get(key)
            if held is not None and epoch is not None:
                held.keep(epoch, state)
            elif held is not None:
                current.append((held, state))
        for held, state in current:
            held.restore(state)

    def published(self, heads: Mapping[str, Head], statistics: ByShard = NO_STATISTICS) -> None:
        """Be told what is published of policies and shards, by key: once after `restore`, and whenever it changes."""
        for held in self._held.values():
            if held.look(heads.get(held.spec.key), statistics):
                self._silenced.append(held)

    def operate(self, control: ControlLog) -> None:
        """Be told of the acts that are on the control topic: once after `published`, and whenever there are more."""
        self._control = control

    def _obey(self, output: LearningOutput) -> None:
        """Obey acts, tell what became of them once that is saved."""
        for held in self._held.values():
            acts = self._control.acts.get(held.spec.key)
            if acts is None or isinstance(held, HeldShard):
                continue
            for outcome in held.obey(acts):
                output.counters["acts_refused" if outcome.reason else "acts_applied"] += 1
                _tell_transitions(held, output, outcome.act_id)
            output.acts += [outcome_record(held.spec, one) for one in held.untold(self._control.answered)]

    def _publish(self, output: LearningOutput, now_us: int, monotonic_us: int) -> None:
        self._obey(output)
        for held in self._silenced:
            output.counters["superseded"] += 1
            if not isinstance(held, HeldShard):  # its merger says so
                output.alerts.append(superseded_alert(held, now_us, self.partition))
        self._silenced.clear()
        output.save = any(held.unsettled for held in self._held.values())
        for held in self._held.values():
            wait_us = min(max(self._interval_us, held.learner.version * US_PER_REWARD), self._interval_max_us)
            if not held.urgent and held.published_us is not None and monotonic_us - held.published_us < wait_us:
                continue
            held.gather()
            if not held.may_publish:
                continue
            held.publishes(monotonic_us)
            if isinstance(held, HeldShard):
                output.statistics.append((held.item, held.learner.to_state()))
                continue
            try:
                output.snapshots.append(held.learner.snapshot(held.stamp(now_us)).to_record())
            except SnapshotError as error:
                output.counters["rejected_snapshots"] += 1
                if held.rejected_version != held.learner.version:
                    held.rejected_version = held.learner.version
                    output.alerts.append(rejected_alert(held, error, now_us, self.partition))


def _tell_transitions(held: HeldLearner, output: LearningOutput, act_id: str = "") -> None:
    """Publish at once what a guard has done, and raise alerts of it."""
    take = getattr(held.learner, "take_transitions", None)
    alerts = [] if take is None else [guard_alert(held.spec, held.learner.epoch, one, act_id) for one in take()]
    output.alerts.extend(alerts)
    held.urgent = held.urgent or bool(alerts)
