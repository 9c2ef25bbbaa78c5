"""The load and the schedule are what they say, before anything is built on them."""

from __future__ import annotations

import json
import random
import time
from collections import Counter, defaultdict

import pytest

from learners.policies_file import load_policies
from steersman.codec import Codec
from steersman.errors import DecodeError, InvalidRecord
from streams.events import validate
from tests.faults.fleet import POINTS, KillSchedule
from tests.faults.load import POLICIES
from tests.faults.poison import Poison
from tests.faults.scenario import MIX
from tests.faults.traces import Mix, Sent, Traffic
from tests.streams.trace_events import event

CODEC = Codec("trace_event")


def lines(records: list[Sent]) -> list[dict[str, str]]:
    return [json.loads(record.line + "}") for record in records]


def test_every_record_is_what_its_line_says() -> None:
    policies = load_policies(POLICIES)
    seen: Counter[str] = Counter()
    for record in Traffic(1, policies, MIX).records(6000):
        line = json.loads(record.line + "}")
        seen[line["what"]] += 1
        if line["what"] == "undecodable":
            with pytest.raises(DecodeError):
                CODEC.decode(record.value)
            continue
        decoded = CODEC.decode(record.value)
        assert decoded["event_id"] == line["event_id"]
        assert (decoded["cost_micro_usd"] or 0) == line["amount"]
        assert decoded["trace_id"].encode() == record.key
        if line["what"] == "invalid":
            with pytest.raises(InvalidRecord):
                validate(decoded, policies)
        else:
            validate(decoded, policies)
    assert set(seen) == {"event", "undecodable", "invalid"}


def test_what_is_asked_for_goes_wrong_and_no_more() -> None:
    mix = Mix(duplicates=0.3, poison=0.02, disorder=0.2)
    records = list(Traffic(2, load_policies(POLICIES), mix).records(20_000))
    assert len(records) == pytest.approx(20_000, rel=0.01)
    found = lines(records)
    repeated = len(found) - len({line["event_id"] for line in found})
    assert repeated / len(found) == pytest.approx(0.3, abs=0.02)
    assert Counter(line["what"] for line in found)["undecodable"] / len(found) == pytest.approx(0.02, abs=0.004)
    first = {line["event_id"]: record for line, record in reversed(list(zip(found, records, strict=True)))}
    assert all(first[line["event_id"]] == record for line, record in zip(found, records, strict=True))
    clean = lines(list(Traffic(2, load_policies(POLICIES), Mix()).records(5000)))
    assert len({line["event_id"] for line in clean}) == len(clean)
    assert {line["what"] for line in clean} == {"event"}


def test_a_trace_ends_last_and_every_decision_has_its_work() -> None:
    found = lines(list(Traffic(3, load_policies(POLICIES), Mix(disorder=0.5)).records(5000)))
    traces = defaultdict(list)
    for line in found:
        traces[line["trace_id"]].append(line)
    for events in traces.values():
        assert [e["kind"] for e in events].count("END") == 1
        assert events[-1]["kind"] == "END"
        decisions = {e["decision_id"] for e in events if e["kind"] == "DECISION"}
        assert decisions
        assert {e["charged_to"] for e in events if "charged_to" in e} == decisions
    feedback_first = sum(events[0]["kind"] == "FEEDBACK" for events in traces.values())
    assert feedback_first > len(traces) / 4


def test_no_bomb_takes_a_decoder_long() -> None:
    poison = Poison(random.Random(4), CODEC)
    for _ in range(300):
        value = poison.bomb(event("FEEDBACK", 1_800_000_000_000_000, value=0.5))
        started = time.process_time()
        with pytest.raises(DecodeError):
            CODEC.decode(value)
        assert time.process_time() - started < 0.5


def test_a_schedule_is_made_by_its_seed_and_comes_by_every_point() -> None:
    first, again, other = (KillSchedule(seed, 20, 1, 3).strikes for seed in (5, 5, 6))
    assert first == again
    assert first != other
    assert {strike.point.partition(":")[0] for strike in first if strike.point} == set(POINTS)
    assert len(first) == 20
    assert [strike.hard for strike in first if strike.point is None] == [True, True]
    assert all(1 <= strike.after_s <= 3 for strike in first)
