"""The learning stage between Kafka and its pure part: rewards in, policies, statistics, alerts and outcomes of acts out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from learners.exploring import RULES
from learners.lineage import Head
from learners.shards import NO_STATISTICS, ByShard
from steersman.clock import Clock
from steersman.codec import Codec
from steersman.headers import RULES_HEADER
from steersman.signing import PolicySigner
from steersman.topics import Topics
from streams.control import NO_ACTS, ControlLog
from streams.dead_letters import DeadLetterStage
from streams.edges import Event, Step, alert_key, audit_records
from streams.learning_stage import LearningOutput, LearningStage
from streams.outputs import OutputRecord
from streams.own_records import OwnRecords
from streams.record_batch import RecordBatch
from streams.reward_reader import RewardReader

_RULES: Final = ((RULES_HEADER, str(RULES).encode()),)

Heads = Callable[[], Mapping[str, Head]]
"""What is published, by policy key."""


class LearnEdge:
    """Rewards in; policy snapshots, statistics of shards and alerts out.

    Parameters
    ----------
    stage
        The pure stage of the partition.
    topics
        Topic names.
    codecs
        By contract name: reward, policy_snapshot, alert, ledger, policy_act.
    clock
        Clock of snapshots and of the publishing interval.
    heads
        Returns what is published, by policy key: another mapping whenever it has changed.
    statistics
        Returns what shards have published: another mapping whenever it has changed.
    signer
        Signs the policies; they go out unsigned without one.
    control
        Returns the acts of operators.
    own
        Rewards that this process has made.
    """

    def __init__(
        self,
        stage: LearningStage,
        topics: Topics,
        codecs: Mapping[str, Codec],
        clock: Clock,
        heads: Heads,
        statistics: Callable[[], ByShard] = lambda: NO_STATISTICS,
        signer: PolicySigner | None = None,
        control: Callable[[], ControlLog] = lambda: NO_ACTS,
        own: OwnRecords | None = None,
    ) -> None:
        self._control = control
        self._reader = RewardReader(codecs["reward"], own)
        self._stage = stage
        self._topics = topics
        self._codecs = codecs
        self._clock = clock
        self._heads = heads
        self._statistics = statistics
        self._signer = signer
        self._seen: tuple[Mapping[str, Head], ByShard] = ({}, NO_STATISTICS)

    def process_batch(self, batch: RecordBatch, start: int) -> Step | None:
        """Process raw rewards."""
        events, failed = self._reader.read(batch, start)
        step = self.process(events)
        step.failed[:0] = [(offset, DeadLetterStage.DESERIALIZE, error) for offset, error in failed]
        return step

    def process(self, events: Sequence[Event]) -> Step:
        """Process decoded rewards."""
        now_us, monotonic_us = self._clock.now_us(), self._clock.monotonic_us()
        self._look()
        return self._step(self._stage.process(events, now_us=now_us, monotonic_us=monotonic_us))

    def audit(self) -> list[OutputRecord]:
        """Return the ledger entries that changed."""
        return audit_records(self._stage.audit(), self._topics, self._codecs)

    def state_items(self) -> int:
        """Count the learners held."""
        return len(self._stage)

    def idle(self) -> Step | None:
        """Snapshots whose turn has come."""
        self._look()
        output = self._stage.due(now_us=self._clock.now_us(), monotonic_us=self._clock.monotonic_us())
        made = output.snapshots or output.statistics or output.alerts or output.acts or output.counters
        return self._step(output) if made or output.save else None

    def needs_tick(self, now_us: int) -> bool:
        """Never: learners do not care for the time."""
        return False

    def dump_dirty(self) -> Mapping[str, bytes | None]:
        """Return the learners changed since the last call."""
        return self._stage.dump_dirty()

    def restore(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Take up saved learners."""
        self._stage.restore(items)

    def close(self) -> None:
        """End what runs beside the stage."""
        self._stage.close()

    def _look(self) -> None:
        self._stage.revise()
        heads, statistics = self._heads(), self._statistics()
        if heads is not self._seen[0] or statistics is not self._seen[1]:
            self._seen = heads, statistics
            self._stage.published(heads, statistics)
        self._stage.operate(self._control())

    def _step(self, output: LearningOutput) -> Step:
        step = Step(counters=output.counters, save=output.save)
        step.failed.extend((offset, DeadLetterStage.LEARN, error) for offset, error in output.rejected)
        for record in output.snapshots:
            key = f"{record['tenant']}/{record['policy']}".encode()
            codec = self._codecs["policy_snapshot"]
            value = codec.encode(record) if self._signer is None else self._signer.encode(codec, key, record)
            step.records.append(OutputRecord(self._topics.policy, key, value, headers=_RULES))
        step.records.extend(OutputRecord(self._topics.shard, key.encode(), value) for key, value in output.statistics)
        for record in output.alerts:
            value = self._codecs["alert"].encode(record)
            step.records.append(OutputRecord(self._topics.alert, alert_key(record).encode(), value))
        for record in output.acts:
            key = f"{record['tenant']}/{record['policy']}".encode()
            step.records.append(OutputRecord(self._topics.control, key, self._codecs["policy_act"].encode(record)))
        return step
