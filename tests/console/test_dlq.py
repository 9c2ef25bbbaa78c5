"""Dead letters by command: found, told apart, and replayed through the real worker with effect once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from console.brokers import Broker
from console.dlq.commands import app
from console.dlq.judge import Judge
from console.dlq.letter import REPLAYED_TO, REPLAYS, Letter, one_per_record, original_headers, read_letter, replays_of
from console.dlq.selection import Selection, parse_offsets, parse_time
from steersman.codec import Codec
from steersman.dead_letter import failure_headers
from steersman.errors import ConfigError, InvalidRecord
from steersman.topics import Topics
from streams.partition_log import LogRecord, PartitionLog
from tests.console.test_cli import steersman
from tests.streams.test_platform_worker import POLICIES, Platform
from tests.streams.trace_events import POLICIES as BOOK
from tests.streams.trace_events import event, hex_id, span_id

TOPICS = Topics("t")


def letter_headers(offset: int = 7, topic: str = TOPICS.trace, stage: str = "VALIDATE") -> list[tuple[str, Any]]:
    return list(failure_headers(topic, 0, offset, stage, InvalidRecord("unknown_policy", "x"), connector="trace"))


def record(offset: int, headers: list[tuple[str, Any]], value: bytes | None = b"v") -> LogRecord:
    return LogRecord(offset, b"k", value, headers, 1_000)


def test_repeats_and_marks_are_one_letter() -> None:
    mark = (REPLAYED_TO, b"t.trace.v1[0]@9")
    letters = [
        read_letter(0, record(3, letter_headers())),
        read_letter(0, record(4, letter_headers(stage="SINK"))),
        read_letter(2, record(1, [*letter_headers(), mark])),
        read_letter(1, record(5, letter_headers(8))),
        read_letter(1, record(6, [])),
        read_letter(1, record(7, [])),
    ]
    found = one_per_record(letters)
    assert [(one.id, one.mark, one.marks) for one in found] == [
        ("0:3", "t.trace.v1[0]@9", 1),
        ("1:5", "", 0),
        ("1:6", "", 0),
        ("1:7", "", 0),
    ]


def test_a_producer_cannot_mark_its_own_record_as_replayed() -> None:
    forged = [(REPLAYED_TO, b"somewhere"), (REPLAYS, b"99999999999"), ("__connect.errors.topic", b"t.policy.v1")]
    letter = read_letter(0, record(1, [*forged, *letter_headers()]))
    assert (letter.mark, letter.replays, letter.source) == ("", 0, (TOPICS.trace, 0, 7))
    assert original_headers([*forged, ("traceparent", b"00"), *letter_headers()]) == [("traceparent", b"00")]
    assert read_letter(0, record(1, forged[:2])).mark == ""
    assert replays_of([(REPLAYS, b"2"), (REPLAYS, b"3")]) == 3


def test_selection() -> None:
    one = Letter(2, 17, (TOPICS.trace, 0, 7), "VALIDATE", "unknown_policy", "", 5_000, 3, False, 0)
    takes = [
        Selection(), Selection(stages=["validate"]), Selection(reasons=["ts", "unknown_policy"]),
        Selection(topics=[TOPICS.trace]), Selection(since_ms=5_000, until_ms=5_001),
        *(Selection(offsets=[parse_offsets(text)]) for text in ("2:17", "2:1-17", "2:17-", "2:")),
    ]  # fmt: skip
    leaves = [
        Selection(stages=["SINK"]), Selection(reasons=["ts"]), Selection(topics=[TOPICS.reward]),
        Selection(since_ms=5_001), Selection(until_ms=5_000),
        *(Selection(offsets=[parse_offsets(text)]) for text in ("1:17", "2:18-", "2:1-16")),
    ]  # fmt: skip
    assert all(one_.takes(one) for one_ in takes)
    assert not any(one_.takes(one) for one_ in leaves)
    assert parse_time("2h", "--since", 10_000_000) == 2_800_000
    assert parse_time("1970-01-01T00:00:01", "--since", 0) == 1000
    for bad in ("x", "2", "2:-4", "2:9-3"):
        with pytest.raises(ConfigError, match=r"--offsets"):
            parse_offsets(bad)
    with pytest.raises(ConfigError, match=r"--since"):
        parse_time("soon", "--since", 0)


def test_what_may_go_back_and_what_stays() -> None:
    codec = Codec("trace_event")
    codecs = {"trace_event": codec, "reward": Codec("reward")}
    judge = Judge(TOPICS, "otlp_spans", {TOPICS.trace: 2, TOPICS.policy: 1, "otlp_spans": 1}, BOOK, codecs)
    good = codec.encode(event("DECISION", int(time.time() * 1e6), "d"))
    unknown = codec.encode({**event("DECISION", int(time.time() * 1e6), "d"), "policy": "nobody"})

    def verdict(headers: list[tuple[str, Any]], value: bytes = good) -> tuple[bool, bool, str]:
        one = record(1, headers, value)
        found = judge.of(read_letter(0, one), one)
        return found.replay, found.firm, found.why

    assert verdict(letter_headers()) == (True, False, "")
    assert verdict(letter_headers(topic="otlp_spans"), b"?")[0]
    replay, firm, why = verdict(letter_headers(), unknown)
    assert (replay, firm) == (False, False)
    assert "would fail again: unknown_policy" in why
    assert "would fail again" in verdict(letter_headers(), b"rubbish")[2]
    assert verdict(letter_headers(stage="JOIN"))[:2] == (False, False)
    for topic in (TOPICS.policy, TOPICS.state, TOPICS.rollup, TOPICS.audit, TOPICS.dead_letter, "other"):
        assert verdict(letter_headers(topic=topic))[:2] == (False, True)
    assert verdict([])[:2] == (False, True)
    assert verdict([*letter_headers(), ("__connect.errors.truncated", b"9999999")])[:2] == (False, True)
    elsewhere = failure_headers(TOPICS.trace, 5, 1, "VALIDATE", InvalidRecord("ts", "x"), connector="trace")
    assert verdict(list(elsewhere))[:2] == (False, True)


LATE_POLICY = """
[[policy]]
name = "late"
baseline = { model = "large", top_k = 8 }
[policy.knobs]
model = ["small", "large"]
top_k = [4, 8]
[policy.reward]
window_s = 600
settle_ms = 100
"""


@pytest.fixture
def platform(kafka: Broker, tmp_path: Path) -> Iterator[Platform]:
    platform = Platform(kafka.bootstrap, tmp_path)
    yield platform
    platform.close()


def trace_of(trace: str, now: int) -> list[dict[str, Any]]:
    decision = event("DECISION", now, "decision", trace=trace, parent_span_id=span_id("work"))
    return [
        {**decision, "policy": "late"},
        event("RETRIEVAL", now + 10, "work", trace=trace, duration_us=9, cost_micro_usd=300),
        event("FEEDBACK", now + 20, "user", trace=trace, value=0.5),
        event("END", now + 30, "root", trace=trace),
    ]


def test_a_replayed_decision_is_rewarded_once_however_often_it_is_replayed(platform: Platform, tmp_path: Path) -> None:
    topics = platform.topics
    env = {"STEERSMAN_TOPIC_PREFIX": topics.prefix, "STEERSMAN_BROKERS": platform.bootstrap}

    def dlq(*args: str) -> Any:
        done = CliRunner().invoke(app, [*args, "--json"], env=env)
        assert done.exit_code == 0, done.exception
        found = [json.loads(line) for line in done.stdout.splitlines()]
        return found if args[0] == "list" else found[0]

    traces = [hex_id(f"late {n}", 32) for n in range(12)]
    now = int(time.time() * 1e6)
    platform.start()
    for trace in traces:
        platform.send(*trace_of(trace, now))
    platform.producer.produce(topics.trace, b"rubbish", partition=0, timestamp=now // 1000)
    platform.producer.flush(10)
    deadline = time.monotonic() + 40
    while len(letters := dlq("list")) < 13:
        assert time.monotonic() < deadline, platform.log.read_text()[-3000:]
    assert {one["reason"] for one in letters if one["bytes"] > 10} == {"unknown_policy"}
    [rubbish] = [one for one in letters if one["bytes"] == 7]
    late = ["--reason", "unknown_policy", "--stage", "validate", "--topic", topics.trace, "--since", "1h"]

    # As long as the policy is not there, replaying would only make dead letters again.
    said = dlq("replay", *late, "--policies", str(platform.policies), "--yes")
    assert (said["replayed"], said["stay"]) == (0, 12)
    assert all("would fail again" in one["why"] for one in said["letters"])

    platform.policies.write_text(POLICIES + LATE_POLICY)
    platform.read(topics.policy, "policy_snapshot", lambda found: any(one["policy"] == "late" for one in found))
    replay = ["replay", *late, "--policies", str(platform.policies)]
    said = dlq(*replay)
    assert (said["dry_run"], said["would_replay"]) == (True, 12)
    assert dlq("replay", "--policies", str(platform.policies))["would_replay"] == 12
    assert len(dlq("list")) == 13
    said = dlq(*replay, "--limit", "5", "--yes")
    assert (said["dry_run"], said["replayed"]) == (False, 5)
    assert dlq(*replay, "--yes")["replayed"] == 7
    rewards = platform.read(topics.reward, "reward", lambda found: len({one["trace_id"] for one in found}) == 12)
    assert sorted(one["trace_id"] for one in rewards) == sorted(traces)
    assert {(one["quality"], one["cost_micro_usd"]) for one in rewards} == {(0.5, 300)}

    # A second replay is refused; forced, it changes nothing.
    said = dlq(*replay, "--yes")
    assert (said["replayed"], said["stay"]) == (0, 12)
    assert all("it was replayed to" in one["why"] for one in said["letters"])
    assert dlq(*replay, "--yes", "--force")["replayed"] == 12
    end = [event("END", int(time.time() * 1e6), "root", trace=hex_id("after", 32))]
    platform.send(*end)
    snapshots = platform.read(
        topics.policy, "policy_snapshot", lambda found: any(s["policy"] == "late" and s["version"] == 12 for s in found)
    )
    assert max(one["version"] for one in snapshots if one["policy"] == "late") == 12
    rewards = platform.read(topics.reward, "reward", lambda found: True)
    assert len(rewards) == 12

    listed = {one["id"]: one for one in dlq("list")}
    assert len(listed) == 13
    assert [one["replays"] for key, one in listed.items() if key != rubbish["id"]] == [2] * 12
    assert listed[rubbish["id"]]["replayed_to"] is None
    counts = {(one["reason"], one["replayed"]): one["letters"] for one in dlq("list", "--summary")}
    assert counts == {("unknown_policy", True): 12, (rubbish["reason"], False): 1}
    back: dict[bytes, list[str]] = {}
    for number in range(3):
        for one in PartitionLog(platform.bootstrap, topics.trace, number):
            if replays := [str(v.decode()) for k, v in one.headers if k == REPLAYS]:
                back.setdefault(one.key or b"", []).extend(replays)
    assert back == {trace.encode(): ["1", "2"] for trace in traces}
    shown = dlq("show", rubbish["id"], "--content")
    assert shown["value_base64"] == "cnViYmlzaA=="
    assert shown["decoded"] is None
    assert "DecodeError" in shown["stacktrace"]
    [first] = [one for one in listed.values() if one["id"] != rubbish["id"]][:1]
    assert dlq("show", first["id"], "--content")["decoded"]["policy"] == "late"
    assert "decoded" not in dlq("show", first["id"])
    missing = steersman("dlq", "show", "0:99999", home=tmp_path, **env)
    assert missing.returncode == 1
    assert "dlq list" in missing.stderr
