"""What must be in Kafka and ClickHouse after a run, written straight from the producers' ledgers.

None of the stages' code is used, only the codec, a Kafka consumer and a ClickHouse client: the check must not share the
mistakes of what it checks.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from sinks.clickhouse import connect
from steersman.codec import Codec, SchemaIds
from steersman.topics import Topics

_SHOWN = 20
Place = tuple[int, int]
"""Partition and offset."""


@dataclass
class Finding:
    """One comparison.

    Attributes
    ----------
    name
        What was compared.
    expected
        How many there must be.
    lost, doubled, altered
        How many are not there, are there twice (or are there though they should not be), and differ.
    written_again
        How many records a producer's client wrote once more: librdkafka, when its producer epoch was renewed after an
        error. They are in the log and stored as such, and must count once.
    differing
        The first of those that are wrong.
    """

    name: str
    expected: int
    lost: int = 0
    doubled: int = 0
    altered: int = 0
    written_again: int = 0
    differing: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.lost or self.doubled or self.altered)

    def note(self, kind: str, what: object) -> None:
        """Count one that is ``lost``, ``doubled`` or ``altered``."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.differing) < _SHOWN:
            self.differing.append(f"{kind}: {what}")

    def __str__(self) -> str:
        counts = f"expected {self.expected}, lost {self.lost}, doubled {self.doubled}, altered {self.altered}"
        if self.written_again:
            counts += f", written again by the producer's client {self.written_again}"
        return f"{'ok ' if self.ok else 'BAD'} {self.name}: {counts}" + "".join(f"\n      {d}" for d in self.differing)


class Ledger:
    """What the producers say they sent."""

    def __init__(self, files: Iterable[Path]):
        self.acked: dict[Place, dict[str, Any]] = {}
        self.unplaced: list[dict[str, Any]] = []  # acked, at an offset that the broker did not tell
        self.unknown: list[dict[str, Any]] = []
        for file in files:
            for line in file.read_text().splitlines():
                record = json.loads(line)
                if record["kind"] == "TICK":
                    continue  # only passes the time, and is stored nowhere
                if record["outcome"] == "unknown":
                    self.unknown.append(record)
                elif record["outcome"] == "acked" and record["offset"] < 0:
                    self.unplaced.append(record)
                elif record["outcome"] == "acked":
                    self.acked[record["partition"], record["offset"]] = record
        self.unsure_traces = {record["trace_id"] for record in self.unknown}
        """Of what these traces reported, some may be in the log or not."""

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield every acknowledged record that a stage should take in, repetitions once."""
        seen: set[str] = set()
        for record in chain(self.acked.values(), self.unplaced):
            if record["what"] == "event" and record["event_id"] not in seen:
                seen.add(record["event_id"])
                yield record


def check(
    brokers: str, clickhouse: str, topics: Topics, ledgers: Iterable[Path], registry: SchemaIds | None = None
) -> list[Finding]:
    """Compare everything.

    Parameters
    ----------
    brokers, clickhouse, topics
        Where the run wrote to; nothing may still be on its way.
    ledgers
        Ledgers of its producers.
    registry
        Where the stages registered their contracts; None where they did not.
    """
    ledger = Ledger(ledgers)
    client = connect(clickhouse)
    try:

        def rows(sql: str, **parameters: Any) -> Iterator[Sequence[Any]]:
            with client.query_rows_stream(sql, parameters=parameters) as stream:
                yield from stream

        decisions = {e["decision_id"]: e for e in ledger.events() if e["kind"] == "DECISION"}
        rewards = _read(brokers, topics.reward, "reward")
        return [
            _events(brokers, ledger, topics, rows),
            _dead_letters(ledger, topics, rows),
            _reward_rows(ledger, decisions, rows),
            _reward_topic(ledger, decisions, rewards, registry),
            _learned(brokers, topics, decisions, ledger, registry),
        ]
    finally:
        client.close()


Rows = Callable[..., Iterator[Sequence[Any]]]


def _events(brokers: str, ledger: Ledger, topics: Topics, rows: Rows) -> Finding:
    """Every acknowledged event is one row, under its id and with its amount, at its place.

    And nothing else is, but what a client wrote again: an acknowledged event that Kafka holds at another place, too.
    """
    wanted = {place: r for place, r in ledger.acked.items() if not r["poison"]}
    somewhere = Counter((r["event_id"], r["amount"]) for r in ledger.unplaced if not r["poison"])
    finding = Finding("events, one row each", len(wanted) + somewhere.total())
    maybe = {record["event_id"] for record in ledger.unknown}
    sent = {(r["event_id"], r["amount"]) for r in wanted.values()}
    again: dict[Place, str] = {}
    found: Counter[Place] = Counter()
    for partition, offset, event_id, amount in rows(
        "SELECT kafka_partition, kafka_offset, event_id, ifNull(cost_micro_usd, 0) FROM trace_events FINAL "
        "WHERE kafka_topic = {topic:String}",
        topic=topics.trace,
    ):
        place = (partition, offset)
        found[place] += 1
        record = wanted.get(place)
        if record is not None:
            if (record["event_id"], record["amount"]) != (event_id, amount):
                finding.note(
                    "altered", f"{place}: {record['event_id']}, {record['amount']} became {event_id}, {amount}"
                )
        elif somewhere[event_id, amount] > 0:
            somewhere[event_id, amount] -= 1
        elif event_id in maybe:
            continue
        elif (event_id, amount) in sent and place not in again:
            again[place] = event_id
        else:
            finding.note("doubled", f"{event_id} at {place}, which no producer wrote")
    codec = Codec("trace_event")
    for place, event_id in again.items():
        if codec.decode(_value_at(brokers, topics.trace, place))["event_id"] == event_id:
            finding.written_again += 1
        else:
            finding.note("doubled", f"{event_id} at {place}, where Kafka holds another")
    for place, record in wanted.items():
        if found[place] != 1:
            finding.note("doubled" if found[place] else "lost", f"{record['event_id']} at {place}: {found[place]} rows")
    for event_id, _ in somewhere.elements():
        finding.note("lost", f"{event_id}, acknowledged without an offset: no row")
    return finding


def _dead_letters(ledger: Ledger, topics: Topics, rows: Rows) -> Finding:
    """What no stage can use is one row of each stage that refuses it: both what does not decode, one what is invalid.

    Such records are found again by their keys: no two of them have the same.
    """
    stages = {"undecodable": ("DESERIALIZE", "SINK"), "invalid": ("VALIDATE",), "event": ()}
    wanted = {
        (stage, record["trace_id"]): (record["partition"], record["offset"])
        for record in chain(ledger.acked.values(), ledger.unplaced)
        for stage in stages[record["what"]]
    }
    finding = Finding("dead letters, one of each stage", len(wanted))
    maybe = {record["trace_id"] for record in ledger.unknown}
    found: Counter[tuple[str, str]] = Counter()
    for stage, partition, offset, key, reason in rows(
        "SELECT stage, error_partition, error_offset, key, reason FROM dead_letters FINAL "
        "WHERE error_topic = {topic:String}",
        topic=topics.trace,
    ):
        letter = (stage, key)
        found[letter] += 1
        if letter not in wanted:
            if key not in maybe:
                finding.note("doubled", f"{stage} of {(partition, offset)} ({reason}), though it is no poison")
        elif wanted[letter][1] >= 0 and wanted[letter] != (partition, offset):
            finding.note("altered", f"{stage} of {wanted[letter]} names {(partition, offset)}")
    for letter, place in wanted.items():
        if found[letter] != 1:
            finding.note("doubled" if found[letter] else "lost", f"{letter[0]} of {place}: {found[letter]} rows")
    for topic, count in rows(
        "SELECT error_topic, count() FROM dead_letters FINAL WHERE error_topic != {topic:String} GROUP BY error_topic",
        topic=topics.trace,
    ):
        finding.note("doubled", f"{count} records of {topic}")
    return finding


def _reward_rows(ledger: Ledger, decisions: Mapping[str, Any], rows: Rows) -> Finding:
    """Every decision has one reward, of the cost that was reported below it and the first judgement of it."""
    finding = Finding("rewards, one row per decision", len(decisions))
    charged: Counter[str] = Counter()
    judged: dict[str, list[tuple[int, str, float, str | None]]] = defaultdict(list)
    for event in ledger.events():
        if "charged_to" in event:
            charged[event["charged_to"]] += event["amount"]
        if event["kind"] == "FEEDBACK":
            judged[event["trace_id"]].append((event["ts"], event["event_id"], event["value"], event["target"]))
    found: Counter[str] = Counter()
    for decision, trace, cost, quality, defaulted in rows(
        "SELECT decision_id, trace_id, cost_micro_usd, quality, quality_defaulted FROM rewards FINAL"
    ):
        found[decision] += 1
        if trace in ledger.unsure_traces:
            continue
        if decision not in decisions:
            finding.note("doubled", f"{decision}, which nobody made")
            continue
        if cost != charged[decision]:
            finding.note("altered", f"{decision} is charged {cost}, {charged[decision]} were reported")
        heard = [value for *_, value, target in sorted(judged[trace]) if target in (None, decision)]
        wanted = heard[0] if heard else None
        if (None if defaulted else quality) != wanted:
            finding.note("altered", f"{decision} has quality {quality}, {wanted} was reported")
    _once(finding, decisions, found, ledger)
    return finding


def _reward_topic(
    ledger: Ledger, decisions: Mapping[str, Any], rewards: list[tuple[int, bytes]], registry: SchemaIds | None
) -> Finding:
    """Whoever reads the topic and takes only growing provenance has every decision once; the rest are repetitions.

    They repeat what was taken in all but ``seq``: a replay counts it without the outputs of the same event that a key
    newer than the marker has given already, so it may be lower.
    """
    finding = Finding("rewards, once by provenance", len(decisions))
    codec = Codec("reward", registry=registry, max_bytes=1 << 24)
    highest: dict[tuple[int, int], tuple[int, int]] = {}
    kept: dict[str, tuple[int, dict[str, Any]]] = {}
    found: Counter[str] = Counter()
    for partition, value in rewards:
        reward = codec.decode(value)
        source, seq = reward["source_partition"], reward.pop("seq")
        at = (reward["source_offset"], seq)
        if at > highest.get((partition, source), (-1, -1)):
            highest[partition, source] = at
            kept[reward["decision_id"]] = seq, reward
            found[reward["decision_id"]] += 1
            continue
        first_seq, first = kept.get(reward["decision_id"], (-1, None))
        if first != reward or seq > first_seq:
            finding.note("altered", f"the reward at {source}, {at} came again as another, or after a later one")
    _once(finding, decisions, found, ledger)
    return finding


def _learned(
    brokers: str, topics: Topics, decisions: Mapping[str, Any], ledger: Ledger, registry: SchemaIds | None
) -> Finding:
    """The last snapshot of every policy has learned from each of its decisions once, and none is poisoned."""
    wanted: Counter[str] = Counter(event["policy"] for event in decisions.values())
    finding = Finding("rewards, learned once", wanted.total())
    last: dict[str, tuple[int, int, int]] = {}
    codec = Codec("policy_snapshot", registry=registry, max_bytes=1 << 24)
    for _, value in _read(brokers, topics.policy, "policy_snapshot"):
        snapshot = codec.decode(value)
        key = f"{snapshot['tenant']}/{snapshot['policy']}"
        last[key] = max(last.get(key, (0, 0, 0)), (snapshot["epoch"], snapshot["version"], snapshot["applied_n"]))
        if not all(np.isfinite(np.frombuffer(tensor["data"], "<f4")).all() for tensor in snapshot["tensors"]):
            finding.note("altered", f"version {snapshot['version']} of {key} has weights that are not finite")
    unsure = Counter(r["policy"] for r in ledger.unknown if r["kind"] == "DECISION")
    for policy, count in wanted.items():
        applied = last.get(policy, (0, 0, 0))[2]
        for kind, by in (("lost", count - applied), ("doubled", applied - count - unsure[policy])):
            if by > 0:
                setattr(finding, kind, getattr(finding, kind) + by)
                finding.differing.append(f"{kind}: {policy} has applied {applied} of {count}")
    return finding


def _once(finding: Finding, decisions: Mapping[str, Any], found: Mapping[str, int], ledger: Ledger) -> None:
    for decision in decisions:
        if found.get(decision, 0) != 1:
            finding.note("doubled" if found.get(decision) else "lost", f"{decision}: {found.get(decision, 0)} rewards")
    for decision in found.keys() - decisions.keys():
        if decision.partition("-")[0] not in ledger.unsure_traces:
            finding.note("doubled", f"{decision}, which nobody made")


def _value_at(brokers: str, topic: str, place: Place) -> bytes:
    """Return the value of the record at a place."""
    consumer = Consumer(
        {"bootstrap.servers": brokers, "group.id": "check", "enable.auto.commit": False, "log_level": 0}
    )
    try:
        consumer.assign([TopicPartition(topic, *place)])
        message = consumer.poll(60)
        assert message is not None, f"{topic} cannot be read at {place}"
        assert message.error() is None, message.error()
        value = message.value()
        return value if message.offset() == place[1] and value is not None else b""
    finally:
        consumer.close()


def _read(brokers: str, topic: str, what: str) -> list[tuple[int, bytes]]:
    """Return partition and value of every record of a topic that is not a tombstone, in order."""
    consumer = Consumer(
        {"bootstrap.servers": brokers, "group.id": "check", "enable.auto.commit": False, "log_level": 0}
    )
    try:
        numbers = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        left: dict[int, int] = {}
        start = []
        for number in numbers:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=20)
            if high > low:
                left[number] = high
                start.append(TopicPartition(topic, number, low))
        consumer.assign(start)
        found: list[tuple[int, bytes]] = []
        deadline = time.monotonic() + 120
        while left:
            messages = consumer.consume(1000, 0.5)
            assert time.monotonic() < deadline, f"{what}: the end of {topic} cannot be read"
            for message in messages:
                assert message.error() is None, message.error()
                partition, offset, value = message.partition(), message.offset(), message.value()
                assert partition is not None
                assert offset is not None
                if value is not None:
                    found.append((partition, value))
                if offset + 1 >= left.get(partition, 0):
                    left.pop(partition, None)
        return found
    finally:
        consumer.close()
