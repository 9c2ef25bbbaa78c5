"""`steersman forget` as a user meets it, on Apache Kafka and chDB: it asks, counts, deletes, and retires policies."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer

from console.brokers import Broker
from console.children import ROOT
from console.forget.retire import TOMBSTONE_AFTER_S, Retired, retire
from sinks.clickhouse import connect
from sinks.migrations import migrate
from steersman.codec import Codec
from steersman.kafka_config import producer_config
from steersman.signing import PolicySigner, PolicyVerifier, generate_keys
from steersman.snapshot import PolicySnapshot
from steersman.topics import Topics
from streams.partition_log import PartitionLog
from streams.topics import create_topics
from tests.faults.gateway import Gateway
from tests.steersman.test_scoring import make_snapshot

NOW_S = 1_790_000_000.0


@pytest.fixture
def topics(kafka: Broker) -> Topics:
    made = Topics(f"forget-{time.time_ns()}")
    create_topics(kafka.bootstrap, made, 1)
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a store with an event of a tenant `gone`, and one of another."""
    gateway = Gateway(tmp_path_factory.mktemp("forget"))
    with connect(gateway.url) as client:
        migrate(client)
        client.command(
            "INSERT INTO trace_events (event_id, tenant, trace_id, kind, ts, attributes) VALUES "
            """('1', 'gone', 'a', 'END', now64(6), '{"user.id":"u"}'), ('2', 'gone', 'b', 'END', now64(6), ''), ('3', 'kept', 'c', 'END', now64(6), '{"user.id":"u"}')"""
        )
    yield gateway.url
    gateway.child.stop()


def publish(kafka: Broker, topics: Topics, *snapshots: PolicySnapshot, key: Path | None = None) -> None:
    codec, producer = Codec("policy_snapshot"), Producer(producer_config(kafka.bootstrap))
    for one in snapshots:
        name = f"{one.tenant}/{one.policy}".encode()
        record = one.to_record()
        value = codec.encode(record) if key is None else PolicySigner(topics.policy, key).encode(codec, name, record)
        producer.produce(topics.policy, key=name, value=value)
    assert producer.flush(20) == 0


def log(kafka: Broker, topics: Topics) -> list[tuple[str, str | None, int]]:
    """(key, stage or None for a tombstone, version) of every record."""
    codec = Codec("policy_snapshot")
    found = []
    for item in PartitionLog(kafka.bootstrap, topics.policy, 0):
        record = codec.decode(item.value, item.headers) if item.value else None
        found.append(((item.key or b"").decode(), record and record["stage"], record["version"] if record else -1))
    return found


def test_policies_are_retired_and_an_hour_later_deleted(kafka: Broker, topics: Topics) -> None:
    one = make_snapshot(tenant="gone", policy="a", stage="LIVE")
    two = make_snapshot(tenant="gone", policy="b/c", stage="SHADOW", version=9)
    publish(kafka, topics, one, replace(one, version=8), two, make_snapshot(tenant="gone2", policy="a", stage="LIVE"))
    before = log(kafka, topics)
    ask = {"brokers": kafka.bootstrap, "topics": topics, "tenant": "gone", "key": None}
    assert retire(**ask, dry_run=True, now_s=lambda: NOW_S) == [Retired("a", "retired"), Retired("b/c", "retired")]
    assert log(kafka, topics) == before
    retire(**ask, now_s=lambda: NOW_S)
    assert log(kafka, topics)[len(before) :] == [("gone/a", "RETIRED", 8), ("gone/b/c", "RETIRED", 9)]
    (soon, _) = retire(**ask, now_s=lambda: NOW_S + TOMBSTONE_AFTER_S - 1)
    assert soon.done == "is retired; run again in an hour for its tombstone"
    assert [r.done for r in retire(**ask, now_s=lambda: NOW_S + TOMBSTONE_AFTER_S)] == ["tombstone", "tombstone"]
    assert log(kafka, topics)[len(before) + 2 :] == [("gone/a", None, -1), ("gone/b/c", None, -1)]
    assert retire(**ask, now_s=lambda: NOW_S + 9 * TOMBSTONE_AFTER_S) == []


def test_signed_policies_are_retired_by_whoever_can_sign(kafka: Broker, topics: Topics, tmp_path: Path) -> None:
    key, public = tmp_path / "p.key", tmp_path / "p.pub"
    generate_keys(key, public)
    publish(kafka, topics, make_snapshot(tenant="gone", policy="a", stage="LIVE"), key=key)
    (left,) = retire(kafka.bootstrap, topics, "gone", None)
    assert "STEERSMAN_POLICY_SIGNING_KEY" in left.done
    assert retire(kafka.bootstrap, topics, "gone", key) == [Retired("a", "retired")]
    *_, last = PartitionLog(kafka.bootstrap, topics.policy, 0)
    assert last.key is not None
    assert last.value is not None
    assert PolicyVerifier(topics.policy, [public]).check(Codec("policy_snapshot"), last.key, last.value).reason == ""


def test_the_command(kafka: Broker, topics: Topics, store: str, tmp_path: Path) -> None:
    publish(kafka, topics, make_snapshot(tenant="gone", policy="a", stage="LIVE"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STEERSMAN_")}
    environment |= {
        "STEERSMAN_TOPIC_PREFIX": topics.prefix,
        "NO_COLOR": "1",
        "COLUMNS": "300",
        "STEERSMAN_HOME": str(tmp_path),
    }

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / "bin/steersman"), "forget", *args, "--brokers", kafka.bootstrap, "--clickhouse", store]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
        )

    nobody = run()
    assert (nobody.returncode, "say whom to forget" in nobody.stderr) == (2, True)
    unasked = run("--user", "u", "--tenant", "gone")
    assert (unasked.returncode, "say --yes, or --dry-run" in unasked.stderr) == (2, True)
    dry = run("--user", "u", "--tenant", "gone", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "dry run: 1 rows of 1 traces would go" in dry.stdout
    done = run("--user", "u", "--tenant", "gone", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["before"]["trace_events"], said["after"]["trace_events"], said["policies"]) == (1, 0, {})
    whole = run("--tenant", "gone", "--yes")
    assert whole.returncode == 0, whole.stderr
    assert "policy a: retired" in whole.stdout
    assert "Kafka keeps records until they expire" in " ".join(whole.stdout.split())
    assert log(kafka, topics)[-1] == ("gone/a", "RETIRED", 7)
    with connect(store) as client:
        assert client.query("SELECT tenant, trace_id FROM v_events").result_rows == [("kept", "c")]
        assert client.query("SELECT scope FROM v_forgotten ORDER BY forgotten_at").result_rows == [
            ("user",),
            ("tenant",),
        ]
