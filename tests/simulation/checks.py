"""What must hold at the end of a simulated schedule: the same as if its log had been processed once, without any failure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from learners.registry import make_learner
from steersman.dead_letter import read_failure
from steersman.errors import DecodeError
from steersman.fingerprint import Fingerprint, unsigned
from streams.detect.catalog import DECISION, TRACE
from streams.learning_stage import LearningOutput, LearningStage
from streams.ledger import entry_key
from streams.trace_edge import rollup_key
from streams.trace_stage import StageOutput, TraceStage
from tests.simulation.bursts import CODECS, DETECTORS, POLICIES, SETTINGS
from tests.simulation.log import Record
from tests.simulation.store import read
from tests.simulation.worker import TOPICS
from tests.simulation.world import INPUT, World
from tests.streams.trace_events import state

_OF_TRACES = {make.name for make in (*TRACE, *DECISION)}
Sums = tuple[int, int, int, int]


def check(world: World) -> None:
    """Check everything; AssertionError names what is wrong."""
    events, unreadable = _decoded(world.log.records(INPUT))
    stage = TraceStage(POLICIES, 0, SETTINGS, detectors=DETECTORS)
    out = stage.process(events)
    rewards = _deduplicated(world.records(TOPICS.reward))
    assert rewards == [CODECS["reward"].encode(reward) for reward in out.rewards], "rewards"
    _check_alerts(world, out)
    _check_rollups(world, out)
    _check_count(world, _check_entries(world, "trace", stage.audit()), events)
    _check_dead_letters(world, out, unreadable)
    _check_trace_state(world, stage)
    _check_learner(world, out)


def _decoded(records: list[Record]) -> tuple[list[Any], dict[int, str]]:
    events: list[Any] = []
    unreadable = {}
    for record in records:
        event = None
        try:
            event = CODECS["trace_event"].decode(record.value)
        except DecodeError as error:
            unreadable[record.offset] = error.reason
        events.append((record.offset, record.timestamp_ms * 1000, event))
    return events, unreadable


def _deduplicated(records: list[Record]) -> list[bytes]:
    """What a consumer takes: of each source partition only what is above the highest provenance seen."""
    highest: dict[int, tuple[int, int]] = {}
    taken = []
    for record in records:
        assert record.value is not None
        reward = CODECS["reward"].decode(record.value)
        place = reward["source_offset"], reward["seq"]
        if place > highest.get(reward["source_partition"], (-1, -1)):
            highest[reward["source_partition"]] = place
            taken.append(record.value)
    return taken


def _check_alerts(world: World, out: StageOutput) -> None:
    found = {one["alert_id"]: one for one in map(_alert, world.records(TOPICS.alert)) if one["detector"] in _OF_TRACES}
    # A replay counts `seq` without the rewards that a key newer than the marker has given already.
    assert _without_seq(found) == _without_seq({one["alert_id"]: one for one in out.alerts}), "alerts"


def _alert(record: Record) -> dict[str, Any]:
    assert record.value is not None
    return CODECS["alert"].decode(record.value)


def _check_rollups(world: World, out: StageOutput) -> None:
    wanted = {rollup_key(rollup): rollup for rollup in out.rollups}
    found: dict[str, dict[str, Any]] = {}
    for record in world.records(TOPICS.rollup):
        rollup = CODECS["rollup"].decode(record.value)
        key = rollup_key(rollup)
        assert record.key == key.encode()
        if rollup["version"] >= found.get(key, rollup)["version"]:
            found[key] = rollup
    # A replay counts `seq` without the rewards that a key newer than the marker has given already.
    assert _without_seq(found) == _without_seq(wanted), "rollups"


def _without_seq(rollups: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {key: {**rollup, "seq": 0} for key, rollup in rollups.items()}


def _check_entries(world: World, stage: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    held: dict[str, dict[str, Any]] = {}
    for record in world.records(TOPICS.audit):
        entry = CODECS["ledger"].decode(record.value)
        key = entry_key(entry)
        assert record.key == key.encode()
        if entry["stage"] == stage and entry["version"] >= held.get(key, entry)["version"]:
            held[key] = entry
    wanted = {entry_key(entry): _sums(entry) for entry in entries}
    assert {key: _sums(entry) for key, entry in held.items()} == wanted, f"ledger of {stage}"
    return list(held.values())


def _check_count(world: World, entries: list[dict[str, Any]], events: list[Any]) -> None:
    """Against counting the log by hand, without any of the stage's code."""
    ledger: dict[tuple[str, str], Fingerprint] = defaultdict(Fingerprint)
    for entry in entries:
        group = {"accepted": "valid", "duplicate": "valid", "too_late": "valid"}.get(entry["outcome"], entry["outcome"])
        tenant = entry["tenant"] if group != "rejected" else ""
        n, total, xor, amount = _sums(entry)
        ledger[group, tenant].merge(Fingerprint(n, unsigned(total), unsigned(xor), amount))
    counted: dict[tuple[str, str], Fingerprint] = defaultdict(Fingerprint)
    for offset, _, event in events:
        if event is None or event["ts"] < 0 or event["policy"] == "nobody":
            counted["rejected", ""].add(f"0:{offset}")
        else:
            group = "tick" if event["kind"] == "TICK" else "valid"
            counted[group, event["tenant"]].add(event["event_id"], event["cost_micro_usd"] or 0)
    for value in _deduplicated(world.records(TOPICS.reward)):
        reward = CODECS["reward"].decode(value)
        counted["rewarded", reward["tenant"]].add(reward["decision_id"], reward["cost_micro_usd"])
    assert dict(ledger) == dict(counted), "ledger against the log"


def _sums(entry: Mapping[str, Any]) -> Sums:
    return entry["n"], entry["id_sum"], entry["id_xor"], entry["amount"]


def _check_dead_letters(world: World, out: StageOutput, unreadable: dict[int, str]) -> None:
    wanted = {(INPUT[0], offset, error.reason) for offset, error in out.rejected}
    wanted |= {(INPUT[0], offset, reason) for offset, reason in unreadable.items()}
    failures = [read_failure(record.headers) for record in world.records(TOPICS.dead_letter)]
    assert {(failure.topic, failure.offset, failure.reason) for failure in failures} == wanted, "dead letters"


def _check_trace_state(world: World, stage: TraceStage) -> None:
    # What is gone is only said by the dump after the one that says it is empty.
    wanted = state(stage, state(stage))
    found = read(world.log, "trace")
    assert found.next_offset in (None, stage.next_offset), "offset of the trace state"
    restored = TraceStage(POLICIES, 0, SETTINGS, detectors=DETECTORS)
    restored.restore(found.items.items())
    held = dict(found.items)
    for key, value in restored.dump_dirty().items():
        assert value is None
        held.pop(key, None)
    found_items, wanted_items = _comparable(held), _comparable(wanted)
    assert found_items == wanted_items, "trace state"


def _comparable(items: Mapping[str, bytes]) -> dict[str, Any]:
    made = {}
    for key, value in items.items():
        parsed = json.loads(value)
        if key.startswith("window:"):
            parsed[2] = None  # one more in a window that was read back
        made[key] = parsed
    return made


class _QuietStage(LearningStage):
    """Publishes nothing, which is what costs most."""

    def _publish(self, output: LearningOutput, now_us: int, monotonic_us: int) -> None:
        return None


def _check_learner(world: World, out: StageOutput) -> None:
    rewards = [
        (record.offset, record.timestamp_ms * 1000, CODECS["reward"].decode(record.value))
        for record in world.records(TOPICS.reward)
    ]
    stage = _QuietStage(POLICIES, 0, 1, detectors=DETECTORS)
    stage.process(rewards, now_us=0, monotonic_us=0)
    _check_entries(world, "learn", stage.audit())
    wanted = {spec.key: make_learner(spec).to_state() for spec in POLICIES}
    found = wanted | read(world.log, "learn").items
    assert found == wanted | dict(stage.dump_dirty()), "learner state"
    learned = Counter(f"{reward['tenant']}/{reward['policy']}" for reward in out.rewards)
    assert {spec.key: stage._held[spec.key].learner.version for spec in POLICIES} == {
        spec.key: learned[spec.key] for spec in POLICIES
    }, "rewards learned"
    snapshots: dict[tuple[str, int, int], dict[str, Any]] = {}
    for record in world.records(TOPICS.policy):
        snapshot = CODECS["policy_snapshot"].decode(record.value) | {"created_at": 0}
        key = snapshot["policy"], snapshot["epoch"], snapshot["version"]
        assert snapshots.setdefault(key, snapshot) == snapshot, f"two snapshots of one version {key}"
