"""What the stages have in common between their pure parts and Kafka: what a step is, codecs, keys and records that both make."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from steersman.codec import Codec
from steersman.topics import Topics
from streams.dead_letters import DeadLetterStage
from streams.ledger import entry_key
from streams.outputs import OutputRecord
from streams.record_batch import RecordBatch
from streams.topics import MAX_STATE_BYTES

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
