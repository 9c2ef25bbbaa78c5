"""Between the pure stages and Kafka: decode records, encode what the stages make of them, know which topic it goes to."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from learners.exploring import RULES
from learners.lineage import Head
from learners.shards import NO_STATISTICS, ByShard
from steersman.clock import Clock
from steersman.codec import Codec
from steersman.errors import InvalidRecord
from steersman.headers import RULES_HEADER
from steersman.signing import PolicySigner
from steersman.topics import Topics
from streams.batch_encoder import BatchEncoder
from streams.control import NO_ACTS, ControlLog
from streams.dead_letters import DeadLetterStage
from streams.learning_stage import LearningOutput, LearningStage
from streams.ledger import entry_key
from streams.outputs import OutputRecord
from streams.own_records import OwnRecords
from streams.reward_reader import RewardReader
from streams.topics import MAX_STATE_BYTES
from streams.trace_rows import TraceRows
from streams.trace_stage import StageOutput
from streams.transport import RecordBatch

COLUMNS_FROM: Final = 64
"""Records of a batch from which on columns are cheaper: 1.0 ms a batch and 9 us a record against 31 us a record."""

Record = Mapping[str, Any]
Event = tuple[int, int, Mapping[str, Any] | None]
"""Offset, Kafka timestamp (microseconds since 1970-01-01 UTC, zero or less without one), decoded record: None for one that
could not be decoded, which the runner sees to; a stage only accounts for it."""


@dataclass
class Step:
    """What a stage made of a batch.

    Attributes
    ----------
    records
        To deliver, in order.
    failed
        (offset, dead-letter stage, error) of input records that cannot be processed.
    counters
        Counts for the metrics.
    save
        Whether the state must be saved before there is more to deliver.
    """

    records: list[OutputRecord] = field(default_factory=list)
    failed: list[tuple[int, DeadLetterStage, Exception]] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    save: bool = False


class EdgeStage(Protocol):
    """A stage for one partition, as the runner drives it."""

    def process(self, events: Sequence[Event]) -> Step:
        """Process records in offset order."""

    def process_batch(self, batch: RecordBatch, start: int) -> Step | None:
        """Process the records of a batch from an index on, decoding them itself; None where that is left to the caller.

        Records that cannot be decoded are in `Step.failed`, before all others.
        """

    def audit(self) -> list[OutputRecord]:
        """Return what is to be on record about the work since the last call; called before `dump_dirty`."""

    def state_items(self) -> int:
        """Count the items of state held."""

    def idle(self) -> Step | None:
        """Return what has become due with the passing of time, None for nothing. Called often."""

    def needs_tick(self, now_us: int) -> bool:
        """Tell whether something waits for event time to pass."""

    def dump_dirty(self) -> Mapping[str, bytes | None]:
        """Return the state changed since the last call."""

    def restore(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Take up saved state, before any record."""

    def close(self) -> None:
        """End what runs beside it: the partition is given up."""


class TracePure(Protocol):
    """The pure trace stage, `streams.trace_stage.TraceStage`."""

    @property
    def state_items(self) -> int:
        """Items of state held."""

    def process(self, events: Sequence[Event]) -> StageOutput:
        """Apply decoded records."""

    def rows(self, batch: RecordBatch, start: int, codec: Codec) -> TraceRows:
        """Prepare raw records."""

    def process_rows(self, rows: TraceRows) -> StageOutput:
        """Apply prepared records."""

    def audit(self) -> list[dict[str, Any]]:
        """Return ledger entries changed since the last call."""

    def needs_tick(self, now_us: int) -> bool:
        """Tell whether something waits for event time to pass."""

    def dump_dirty(self) -> Mapping[str, bytes | None]:
        """Return the state changed since the last call."""

    def restore(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Take up saved state."""


RewardKey = Callable[[str, str, int], str]
"""Record key of a reward, from tenant, policy and source partition."""


def policy_key(tenant: str, policy: str, source_partition: int) -> str:
    """Return the record key of a reward whose policy has one learner."""
    return f"{tenant}/{policy}"


class TraceEdge:
    """Trace events in, rewards, rollups and alerts out.

    Parameters
    ----------
    stage
        The pure stage of the partition.
    topics
        Topic names.
    codecs
        By contract name: trace_event, reward, rollup, alert, ledger.
    reward_key
        Key of a reward: `learners.policies.Policies.reward_key` knows which policies have shards.
    columns_from
        Fewest records of a batch that go by columns, which cost about a millisecond however few they are.
    own
        Where to remember the rewards, when this process is going to read them.
    """

    def __init__(
        self,
        stage: TracePure,
        topics: Topics,
        codecs: Mapping[str, Codec],
        reward_key: RewardKey = policy_key,
        *,
        columns_from: int = COLUMNS_FROM,
        own: OwnRecords | None = None,
    ) -> None:
        self._stage = stage
        self._own = own
        self._reward_key = reward_key
        self._topics = topics
        self._reward, self._rollup, self._alert = topics.reward, topics.rollup, topics.alert  # made anew each time
        self._codecs = codecs
        self._encoders = {name: BatchEncoder(codecs[name]) for name in ("reward", "rollup", "alert")}
        self._columns_from = columns_from

    def process(self, events: Sequence[Event]) -> Step:
        """Process decoded trace events."""
        return self._step(self._stage.process(events))

    def process_batch(self, batch: RecordBatch, start: int) -> Step | None:
        """Process raw trace events by columns, unless they are few."""
        if len(batch) - start < self._columns_from:
            return None
        rows = self._stage.rows(batch, start, self._codecs["trace_event"])
        step = self._step(self._stage.process_rows(rows))
        undecodable = [(offset, DeadLetterStage.DESERIALIZE, error) for offset, error in rows.failed]
        step.failed[:0] = undecodable
        return step

    def _step(self, output: StageOutput) -> Step:
        step = Step(counters=Counter(output.counters))
        step.failed.extend((offset, DeadLetterStage.VALIDATE, error) for offset, error in output.rejected)
        sent = self._emit(step, self._reward, "reward", self._key_of_reward, output.rewards)
        if self._own is not None:
            for value, record in sent:
                self._own.note(value, record)
        self._emit(step, self._rollup, "rollup", rollup_key, output.rollups)
        self._emit(step, self._alert, "alert", alert_key, output.alerts)
        return step

    def _key_of_reward(self, record: Record) -> str:
        return self._reward_key(record["tenant"], record["policy"], record["source_partition"])

    def audit(self) -> list[OutputRecord]:
        """Return the ledger entries that changed."""
        return audit_records(self._stage.audit(), self._topics, self._codecs)

    def state_items(self) -> int:
        """Count traces and windows held."""
        return self._stage.state_items

    def idle(self) -> Step | None:
        """Nothing: only event time moves this stage."""
        return None

    def needs_tick(self, now_us: int) -> bool:
        """Tell whether something waits for event time to pass."""
        return self._stage.needs_tick(now_us)

    def dump_dirty(self) -> Mapping[str, bytes | None]:
        """Return the state changed since the last call."""
        return self._stage.dump_dirty()

    def restore(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Take up saved state."""
        self._stage.restore(items)

    def close(self) -> None:
        """Nothing: nothing runs beside it."""

    def _emit(
        self, step: Step, topic: str, contract: str, key_of: Callable[[Record], str], records: Sequence[Record]
    ) -> list[tuple[bytes, Record]]:
        """Put records on their way; returns those that are, as they were encoded."""
        sent: list[tuple[bytes, Record]] = []
        for value, record in zip(self._encoders[contract].encode(records), records, strict=True):
            if isinstance(value, ValueError):
                # An output outside its contract: the record that caused it is the one to look at.
                why = InvalidRecord(f"unencodable_{contract}", str(value))
                step.failed.append((record["source_offset"], DeadLetterStage.JOIN, why))
            else:
                step.records.append(OutputRecord(topic, key_of(record).encode(), value))
                sent.append((value, record))
        return sent


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


_RULES: Final = ((RULES_HEADER, str(RULES).encode()),)
_LARGE: Final = ("policy_snapshot", "policy_act")


def make_codecs(names: Iterable[str], registry: Any = None) -> dict[str, Codec]:
    """Return a codec per contract name; snapshots may be large, and acts may hold one."""
    return {
        name: Codec(name, registry=registry, max_bytes=MAX_STATE_BYTES if name in _LARGE else 1 << 20) for name in names
    }


def audit_records(entries: Iterable[dict[str, Any]], topics: Topics, codecs: Mapping[str, Codec]) -> list[OutputRecord]:
    """Return the records of ledger entries on the audit topic."""
    codec = codecs["ledger"]
    return [OutputRecord(topics.audit, entry_key(entry).encode(), codec.encode(entry)) for entry in entries]


def rollup_key(record: Mapping[str, Any]) -> str:
    """Return the record key of a rollup: its window key."""
    return (
        f"{record['window_start']}|{record['window_us']}|{record['tenant']}|{record['agent']}|{record['policy']}|"
        f"{record['arm']}|{record['operation']}|{record['kind']}|{record['source_partition']}"
    )


def alert_key(record: Mapping[str, Any]) -> str:
    """Return the record key of an alert: tenant/policy, or the tenant."""
    return f"{record['tenant']}/{record['policy']}" if record["policy"] else str(record["tenant"])


def tick_event(topic: str, partition: int, now_us: int, tenant: str) -> dict[str, Any]:
    """Return the TICK event that tells a partition the time: same place and time, same event.

    Only the fields without a default are set.
    """
    digest = hashlib.blake2b(f"tick/{topic}/{partition}/{now_us}".encode(), digest_size=28).hexdigest()
    return {
        "event_id": digest[:32],
        "tenant": tenant,
        "trace_id": digest[:32],
        "span_id": digest[32:48],
        "agent": "",
        "kind": "TICK",
        "ts": now_us,
    }


MakeEdge = Callable[[int], EdgeStage]
"""Makes the stage of a partition."""
