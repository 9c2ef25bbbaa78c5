"""The sink as a process, between a real broker and ClickHouse behind HTTP."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer

from console.children import Child, python
from steersman.codec import Codec
from steersman.dead_letter import CUT, failure_headers
from steersman.errors import DecodeError
from steersman.kafka_config import producer_config
from steersman.topics import Topics
from tests.sinks.records import START_US, event


def test_every_topic_into_its_table(start, until, produce, record, topics: Topics, client: Client):
    for i in range(20):
        produce(topics.trace, event(i), key=f"{i // 3:032x}")
    produce(topics.trace, Codec("trace_event").encode(record("trace_event", kind="TICK", ts=START_US)))
    for i in range(3):
        produce(
            topics.reward,
            Codec("reward").encode(
                record("reward", decision_id=f"d{i}", mode="LIVE", ts=START_US, decided_at=START_US)
            ),
        )
        produce(
            topics.rollup,
            Codec("rollup").encode(
                record("rollup", agent=f"a{i}", window_start=START_US, histogram_index=[3], histogram_count=[1])
            ),
        )
        produce(topics.alert, Codec("alert").encode(record("alert", alert_id=f"a{i}", severity="WARNING", ts=START_US)))
        produce(topics.audit, Codec("ledger").encode(record("ledger", minute=START_US, first_offset=i)))
    snapshot = record(
        "policy_snapshot", policy="p", version=7, stage="LIVE", created_at=START_US, baseline="k=1",
        knobs=[{"name": "k", "levels": ["1", "2"]}, {"name": "m", "levels": ['"a"', '"b"']}],
        forbidden=['{"k": 1, "m": "b"}'], objective=[{"component": "quality", "weight": 1.0, "scale": 1.0}],
        tensors=[{"name": "mean", "shape": [1], "data": b"\0\0\0\0"}],
    )  # fmt: skip
    produce(topics.policy, Codec("policy_snapshot").encode(snapshot))
    produce(topics.policy, None)  # retired
    error = DecodeError("magic", "value begins with 6e6f")
    produce(
        topics.dead_letter, b"no\xffavro", headers=failure_headers("t", 3, 17, "DESERIALIZE", error, connector="trace")
    )
    sink = start()

    def count(table: str) -> int:
        return int(client.command(f"SELECT count() FROM {table} FINAL"))

    tables = ("trace_events", "rewards", "rollups", "alerts", "ledger", "policies", "dead_letters")
    until(lambda: [count(t) for t in tables] == [20, 3, 3, 3, 3, 1, 1], sink)
    for table in tables:
        age = f"SELECT max(abs(dateDiff('second', kafka_timestamp, now()))) FROM {table}"
        assert client.command(age) < 600, f"{table}: the time of producing"
    assert sink.stop() == 0
    assert client.query("SELECT sum(cost_micro_usd), min(ts), uniqExact(kafka_offset, kafka_partition), any(kafka_topic) FROM trace_events").result_rows[0][0::2] == (190, 20)  # fmt: skip
    policy = client.query(
        "SELECT arms, objective, record_bytes, length(record_sha256), signed, tensors, not_after FROM v_policies"
    ).first_row
    assert policy[0] == ["k=1;m=a", "k=2;m=a", "k=2;m=b"]
    assert json.loads(policy[1]) == snapshot["objective"]
    assert policy[2:] == (len(Codec("policy_snapshot").encode(snapshot)), 64, False, ["mean"], None)
    dead = client.query(
        "SELECT stage, reason, error_topic, error_partition, error_offset, message, hex(value) FROM dead_letters"
    ).first_row
    assert dead == ("DESERIALIZE", "magic", "t", 3, 17, "magic: value begins with 6e6f", b"no\xffavro".hex().upper())
    printed = json.loads(sink.log.read_text().splitlines()[-1])
    assert printed["trace_events"]["rows"] == 20
    assert printed["trace_events"]["skipped"] == 1


def test_what_cannot_be_stored_becomes_a_dead_letter(start, until, produce, record, topics: Topics, client: Client):
    produce(topics.trace, event(0), partition=0)
    produce(topics.trace, b"garbage", key="bad", headers=[("traceparent", b"00-1"), ("tenant", b"t1")], partition=0)
    produce(topics.trace, None, partition=0)
    produce(topics.trace, event(1)[:-1], partition=0)
    far = Codec("trace_event").encode(record("trace_event", kind="END", ts=9 * 10**18))
    produce(topics.trace, far, partition=0)
    produce(topics.trace, event(2), partition=0)
    bad_arms = record("policy_snapshot", knobs=[{"name": "k", "levels": ["oops"]}], created_at=START_US)
    produce(topics.policy, Codec("policy_snapshot").encode(bad_arms))
    sink = start()
    until(lambda: client.command("SELECT count() FROM v_dead_letters") == 5, sink)
    until(lambda: client.command("SELECT count() FROM v_events") == 2, sink)
    rows = client.query(
        "SELECT error_topic, error_offset, stage, reason, tombstone, tenant FROM v_dead_letters ORDER BY error_topic, error_offset"
    ).result_rows
    assert rows == [
        (topics.policy, 0, "SINK", "bad_arms", False, ""),
        (topics.trace, 1, "SINK", "magic", False, "t1"),
        (topics.trace, 2, "SINK", "empty", True, ""),
        (topics.trace, 3, "SINK", "corrupt", False, ""),
        (topics.trace, 4, "SINK", "time_out_of_range", False, ""),
    ]
    kept = client.query("SELECT value, headers['traceparent'] FROM dead_letters WHERE error_offset = 1").first_row
    assert kept == ("garbage", "00-1")


def test_too_many_in_a_row_stop_the_process_after_what_came_before(
    start, until, produce, topics: Topics, client: Client
):
    for i in range(2300):
        produce(topics.trace, event(i) if i in (0, 1200) else b"garbage", partition=0)
    produce.flush(10)
    tables = "SELECT (SELECT count() FROM v_events), (SELECT count() FROM v_dead_letters)"
    for rows in (1, 2):
        sink = start(STEERSMAN_SINK_FLUSH_S="1", STEERSMAN_SINK_FLUSH_ROWS="5000")
        assert sink.wait(60) == 1
        assert "records of" in sink.tail()
        assert "in a row cannot be stored" in sink.tail()
        assert client.query(tables).first_row[0] == rows
    sink = start()
    until(lambda: client.query(tables).first_row == (2, 2298), sink)


@pytest.mark.parametrize("bus", ["broker", "kafka"], indirect=True)
def test_killed_clickhouse_and_killed_sink_lose_and_double_nothing(
    start, until, produce, topics: Topics, client: Client, gateway_process
):
    total = 6000
    sink = start()
    for i in range(total):
        produce(topics.trace, event(i), key=f"{i // 3:032x}")
        if i in (1500, 3500):
            produce.flush(10)
            until(lambda: client.command("SELECT count() FROM trace_events") >= 500, sink)
            gateway_process.kill()
        if i in (2500, 4500):
            gateway_process.restart()
        if i == 5200:
            produce.flush(10)
            sink.kill()
            sink = start()
    produce.flush(10)
    until(lambda: client.command("SELECT count() FROM v_events") == total, sink)
    sums = client.query("SELECT sum(cost_micro_usd), uniqExact(event_id), min(kafka_offset) FROM v_events").first_row
    assert sums == (total * (total - 1) // 2, total, 0)
    assert client.command("SELECT count() FROM v_dead_letters") == 0
    assert sink.stop() == 0


def test_dead_letter_that_is_too_large_is_cut(start, until, bus, topics: Topics, client: Client):
    producer = Producer({**producer_config(bus.bootstrap), "message.max.bytes": 1_048_000})
    producer.produce(topics.trace, value=b"x" * 1_040_000)
    producer.produce(topics.trace, value=event(1))
    assert producer.flush(20) == 0
    sink = start()
    until(lambda: client.command("SELECT count() FROM v_dead_letters") == 1, sink)
    kept = client.query(
        "SELECT value_bytes, reason, headers['__connect.errors.truncated'] FROM v_dead_letters"
    ).first_row
    assert kept == (CUT, "magic", "1040000")
    until(lambda: client.command("SELECT count() FROM v_events") == 1, sink)


def test_too_many_parts_pauses_and_resumes(start, until, produce, record, topics: Topics, client: Client):
    client.command("INSERT INTO alerts (alert_id, ts) VALUES ('one', '2026-09-21 00:00:00')")
    client.command("SYSTEM STOP MERGES alerts")
    client.command("ALTER TABLE alerts MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1")
    for i in range(50):
        produce(topics.alert, Codec("alert").encode(record("alert", alert_id=f"a{i}", ts=START_US)))
        produce(topics.trace, event(i))
    sink = start()
    until(lambda: sink.log.read_text().count("code: 252") > 2, sink)
    assert client.command("SELECT count() FROM v_events") == 50, "other tables go on"
    client.command("ALTER TABLE alerts RESET SETTING parts_to_throw_insert, parts_to_delay_insert")
    client.command("SYSTEM START MERGES alerts")
    until(lambda: client.command("SELECT count() FROM v_alerts") == 51, sink)
    until(lambda: "resumed" in sink.log.read_text(), sink)
    assert client.command("SELECT count() FROM alerts") == 51, "the batch was inserted once"


def test_missing_tables_wrong_addresses_and_bad_settings(bus, topics: Topics, gateway_process, tmp_path: Path):
    def exit_of(*args: str, **env: str) -> tuple[int | None, str]:
        base = {
            "STEERSMAN_BROKERS": bus.bootstrap,
            "STEERSMAN_TOPIC_PREFIX": topics.prefix,
            "STEERSMAN_CLICKHOUSE_URL": gateway_process.url,
        }
        child = Child(f"c{time.monotonic_ns()}", python("sinks", *args), tmp_path, {**base, **env})
        return child.wait(60), child.tail()

    code, text = exit_of("run")
    assert (code, "run 'python -m sinks migrate'" in text) == (1, True), text
    code, text = exit_of("run", STEERSMAN_CLICKHOUSE_URL="http://u:secret@127.0.0.1:1")
    assert (code, "cannot reach ClickHouse" in text, "secret" in text) == (3, True, False), text
    code, text = exit_of("run", STEERSMAN_BROKERS="127.0.0.1:1")
    assert (code, "cannot reach Kafka at 127.0.0.1:1" in text) == (3, True), text
    code, text = exit_of("run", STEERSMAN_SINK_FLUSH_S="soon")
    assert (code, "STEERSMAN_SINK_FLUSH_S" in text) == (2, True), text
    code, text = exit_of("migrate", "--dry-run", "--json")
    assert (code, json.loads(text)["applied"]) == (0, [])
    code, _ = exit_of("nonsense")
    assert code == 2


@pytest.mark.parametrize("bus", ["broker", "kafka"], indirect=True)
def test_two_sinks_share_the_partitions(start, until, produce, record, topics: Topics, client: Client):
    """While members come and go every record is read by somebody, and the tables keep one row of each."""
    total = 3000
    sinks = [start()]
    for i in range(total):
        produce(topics.trace, event(i), key=f"{i:032x}")
        if i == 1000:
            until(lambda: '"assigned"' in sinks[0].log.read_text(), sinks[0])
            sinks.append(start())
            until(lambda: '"assigned"' in sinks[1].log.read_text(), sinks[1])
        if i == 2000:
            assert sinks[0].stop() == 0
    produce.flush(10)
    until(lambda: client.command("SELECT count() FROM v_events") == total, sinks[1])
    assert client.query("SELECT uniqExact(event_id), sum(cost_micro_usd) FROM v_events").first_row == (
        total,
        total * (total - 1) // 2,
    )
    assert "revoked" in sinks[0].log.read_text()
    assert sinks[1].stop() == 0


def test_sigterm_writes_what_was_read(start, until, produce, record, topics: Topics, client: Client):
    sink = start()
    until(lambda: "assigned" in sink.log.read_text(), sink)
    for i in range(300):
        produce(topics.trace, event(i))
    produce.flush(10)
    until(lambda: client.command("SELECT count() FROM v_events") > 0, sink)
    sink.signal(signal.SIGTERM)
    assert sink.wait(20) == 0
    rest = start()
    until(lambda: client.command("SELECT count() FROM v_events") == 300, rest)
    assert client.command("SELECT count() FROM trace_events") == 300, (
        "the offsets were committed: nothing was read twice"
    )
