"""`steersman verify` on a whole system: it agrees with a healthy one, and finds what is done to its tables."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer

from console.children import ROOT, Child, free_port
from console.verify.log_reader import LogReader
from examples.fleet.world import BASELINE, METRIC
from sinks.clickhouse import connect
from steersman import Kind, PolicySubscriber, Router, Tracer
from steersman.codec import Codec
from steersman.errors import DecodeError
from steersman.kafka_config import producer_config

STEERSMAN = str(ROOT / "bin/steersman")
PORTS = ["--port", "0", "--http-port", "0", "--doors-port", "0", "--page-port", "0"]
TRACE = "steersman.trace.v1"
POISON = 3


class System:
    """A running `steersman up` with some traffic and some poison in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        stack = json.loads((home / "stack.json").read_text())
        self.brokers, self.clickhouse = stack["brokers"], stack["clickhouse"]

    def fleet(self, seconds: int) -> Child:
        python = str(ROOT / ".venv/bin/python")
        args = [python, "-m", "examples.fleet", "--rate", "20", "--seconds", str(seconds), "--json"]
        return Child("fleet", args, self.home, {"STEERSMAN_BROKERS": self.brokers})

    def verify(self, *args: str, code: int | None) -> dict[str, Any]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("STEERSMAN_")} | environment(self.home)
        done = subprocess.run(
            [STEERSMAN, "verify", "--json", *args], capture_output=True, text=True, timeout=120, env=env, check=False
        )
        assert done.returncode in ((0, 4) if code is None else (code,)), done.stdout + done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        assert document["ok"] is (done.returncode == 0)
        return document


def environment(home: Path) -> dict[str, str]:
    policies = home / "policies.toml"
    chosen = {"STEERSMAN_POLICIES": str(policies)} if policies.exists() else {}
    return {"STEERSMAN_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "200", **chosen}


def sharded(text: str, shards: dict[str, int]) -> str:
    """The policies file with some of its policies learned in shards."""
    for name, number in shards.items():
        start = text.index("[policy.exploration]", text.index(f'name = "{name}"'))
        text = f"{text[:start]}[policy.learning]\nshards = {number}\n\n{text[start:]}"
    return text


def by_id(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {equation["id"]: equation for equation in document["equations"]}


def wrong(document: dict[str, Any]) -> dict[str, list[str]]:
    return {equation["id"]: equation["differing"] for equation in document["equations"] if not equation["ok"]}


EMBEDDED = pytest.mark.parametrize("system", ["embedded"], indirect=True)
BOTH = pytest.mark.parametrize("system", ["embedded", "kafka"], indirect=True)


@pytest.fixture(scope="module")
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    options = ["--kafka"] if request.param == "kafka" else []
    if options and not os.environ.get("CI") and not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("Apache Kafka needs Java and Maven")
    home = tmp_path_factory.mktemp("verify")
    policies = sharded((ROOT / "policies.toml").read_text(), {"research/retrieval": 4, "research/synthesis": 2})
    (home / "policies.toml").write_text(policies)
    up = Child("up", [STEERSMAN, "up", *PORTS, "--json", *options], home, environment(home))
    up.wait_until(lambda: '"brokers"' in up.tail(), 120, "ready")
    running = System(home)
    poison = Producer(producer_config(running.brokers))
    for i in range(POISON):
        poison.produce(TRACE, b"\x00no event", key=str(i))
    assert poison.flush(20) == 0
    fleet = running.fleet(5)
    assert fleet.wait(120) == 0, fleet.tail()
    yield running
    up.signal(signal.SIGINT)
    assert up.wait(60) == 0, up.tail()


@pytest.fixture
def store(system: System) -> Iterator[Client]:
    with contextlib.closing(connect(system.clickhouse)) as client:
        yield client


@BOTH
def test_a_healthy_system_adds_up(system: System) -> None:
    equations = by_id(system.verify(code=0))
    assert {
        "E1",
        "E1b",
        "E2a",
        "E2b",
        "E2c",
        "E2d",
        "E3",
        "E4a",
        "E4b",
        "E4c",
        "E4d",
        "E5",
        "E6a",
        "E6b",
        "E6c",
        "E7a",
        "E7b",
    } == (equations.keys())
    assert equations["E2c"]["left"]["n"] == equations["E2d"]["right"]["n"] == POISON
    events = equations["E1b"]["left"]["n"]
    assert events > 1000
    assert equations["E2a"]["left"]["n"] == events + POISON
    assert equations["E3"]["right"]["n"] == events
    assert equations["E4a"]["left"]["n"] > 200
    assert equations["E6a"]["left"]["n"] > 4
    with LogReader(system.brokers, "steersman.shard.v1") as reader:
        keys = {message.key() for message in reader.read()}
    shards = [("retrieval", k) for k in range(4)] + [("synthesis", k) for k in range(2)]
    assert keys == {f"default/research/{name}#{k}".encode() for name, k in shards}
    for equation in equations.values():
        assert equation["left"].get("amount") == equation["right"].get("amount")


@EMBEDDED
def test_what_producers_say_is_asked_of_the_log(system: System, tmp_path: Path) -> None:
    ledger, codec = tmp_path / "producer.jsonl", Codec("trace_event")
    lines = []
    with LogReader(system.brokers, TRACE) as reader:
        for message in reader.read():
            line = {"outcome": "acked", "partition": message.partition(), "offset": message.offset()}
            try:
                event = codec.decode(message.value())
                lines.append(line | {"event_id": event["event_id"], "amount": event["cost_micro_usd"] or 0})
            except DecodeError:
                lines.append(line | {"event_id": "", "poison": True})
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    system.verify("--producer-ledger", str(ledger), code=0)
    lost = {"event_id": "f" * 32, "outcome": "acked", "partition": 0, "offset": 10**9}
    with ledger.open("a") as more:
        more.write(json.dumps(lost) + "\n")
    found = wrong(system.verify("--producer-ledger", str(ledger), code=4))
    assert found == {"E1": [f"{'f' * 32} at 0@1000000000: acknowledged, not in Kafka"]}


@EMBEDDED
def test_the_check_finds_what_is_done_to_the_table(system: System, store: Client) -> None:
    ((identity,),) = store.query(
        "SELECT event_id FROM trace_events WHERE cost_micro_usd > 0 ORDER BY event_id LIMIT 1"
    ).result_rows
    one = {"id": identity}

    def delete() -> None:
        store.command("ALTER TABLE trace_events DELETE WHERE event_id = {id:String} SETTINGS mutations_sync = 2", one)

    def insert(changes: str = "") -> None:
        store.command(f"INSERT INTO trace_events SELECT * {changes} FROM saved")

    store.command("CREATE TABLE saved AS trace_events ENGINE = Memory")
    store.command("INSERT INTO saved SELECT * FROM trace_events WHERE event_id = {id:String}", one)

    delete()
    dropped = wrong(system.verify(code=4))
    assert dropped.keys() == {"E1b", "E2a", "E3"}
    assert dropped["E2a"][0].startswith(f"{identity} ")
    assert "0 in trace_events" in dropped["E2a"][0]

    insert()
    insert("REPLACE (kafka_offset + 1000000 AS kafka_offset)")
    doubled = wrong(system.verify(code=4))
    assert doubled.keys() == {"E2a"}
    assert doubled["E2a"][0].startswith(f"{identity} ")
    assert "2 in trace_events" in doubled["E2a"][0]

    delete()
    insert("REPLACE (cost_micro_usd + 1 AS cost_micro_usd)")
    changed = wrong(system.verify(code=4))
    assert changed.keys() == {"E2a", "E3"}
    assert changed["E2a"][0].startswith(f"{identity} ")
    assert "amount" in changed["E2a"][0]

    delete()
    insert()
    system.verify(code=0)
    store.command("DROP TABLE saved")


@EMBEDDED
def test_the_check_finds_a_lost_reward_and_a_window_that_counts_wrong(system: System, store: Client) -> None:
    ((decision,),) = store.query("SELECT decision_id FROM rewards FINAL ORDER BY decision_id LIMIT 1").result_rows
    store.command("CREATE TABLE saved_rewards AS rewards ENGINE = Memory")
    store.command("INSERT INTO saved_rewards SELECT * FROM rewards WHERE decision_id = {id:String}", {"id": decision})
    store.command(
        "ALTER TABLE rewards DELETE WHERE decision_id = {id:String} SETTINGS mutations_sync = 2", {"id": decision}
    )
    lost = wrong(system.verify(code=4))
    assert lost.keys() == {"E4a"}
    assert lost["E4a"][0].startswith(f"{decision} ")
    store.command("INSERT INTO rewards SELECT * FROM saved_rewards")
    store.command("DROP TABLE saved_rewards")

    more = (
        "ALTER TABLE rollups UPDATE events = events + {by:Int8} WHERE kind = 'AGENT' AND source_partition = {of:Int32} "
        "AND version <= {newest:Int64} SETTINGS mutations_sync = 2"
    )
    for _ in range(5):
        # A window that closes meanwhile is stored again as it should be; then there is nothing to find. Versions are offsets,
        # so what comes later can only be told within a partition.
        newest = store.query("SELECT source_partition, max(version) FROM rollups GROUP BY 1").result_rows
        for of, version in newest:
            store.command(more, {"by": 1, "of": of, "newest": version})
        found = system.verify(code=None)
        for of, version in newest:
            store.command(more, {"by": -1, "of": of, "newest": version})
        if not found["ok"]:
            break
    assert wrong(found).keys() == {"E3"}
    system.verify(code=0)


def traffic(system: System, user: str, tenant: str = "default") -> None:
    """Some judged decisions of a user, and a record that is no event and names them."""
    with (
        Tracer("asked", brokers=system.brokers, tenant=tenant) as tracer,
        PolicySubscriber(system.brokers) as policies,
    ):
        router = Router(policies, tracer, baselines={"research/retrieval": BASELINE["retrieval"]})
        for _ in range(8):
            with tracer.span(Kind.AGENT, operation="ask") as span:
                span.set(attributes={"user.id": user}, cost_micro_usd=7)
                decision = router.choose("research/retrieval", {})
            tracer.feedback(decision, METRIC["retrieval"], 1.0)
    poison = Producer(producer_config(system.brokers))
    poison.produce(TRACE, json.dumps({"user": user}).encode(), key=user)
    assert poison.flush(20) == 0


@EMBEDDED
def test_what_was_forgotten_is_not_taken_for_lost(system: System, store: Client) -> None:
    traffic(system, "u-4711")
    traffic(system, "u-4712", tenant="gone")
    stored = "SELECT count() FROM rewards FINAL WHERE tenant = 'default' AND trace_id IN (SELECT trace_id FROM trace_events WHERE position(attributes, 'u-4711') > 0)"
    deadline = time.monotonic() + 60
    while store.command(stored) != 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert store.command(stored) == 8
    before = by_id(system.verify(code=0))

    for args in (["--user", "u-4711", "--tenant", "default"], ["--tenant", "gone"]):
        done = run(system.home, *args, "--yes", "--json", command="forget")
        assert done.returncode == 0, done.stderr
        gone = json.loads(done.stdout)["before"]
        assert min(gone["trace_events"], gone["dead_letters"]) > 0, gone
    assert store.command(stored) == 0
    after = by_id(system.verify(code=0))
    assert after["E2a"]["note"] == "without what was forgotten, without 1 forgotten tenant"
    assert before["E2a"]["left"]["n"] - after["E2a"]["left"]["n"] > 16
    assert before["E4a"]["left"]["n"] - after["E4a"]["left"]["n"] == 8
    assert after["E3"]["left"]["of"] == "trace_events and forgotten"
    assert before["E2d"]["left"] == after["E2d"]["left"]

    # It goes on telling what is lost from what was forgotten.
    ((identity,),) = store.query(
        "SELECT event_id FROM trace_events WHERE cost_micro_usd > 0 ORDER BY event_id LIMIT 1"
    ).result_rows
    one = {"id": identity}
    store.command("CREATE TABLE kept AS trace_events ENGINE = Memory")
    store.command("INSERT INTO kept SELECT * FROM trace_events WHERE event_id = {id:String}", one)
    store.command("ALTER TABLE trace_events DELETE WHERE event_id = {id:String} SETTINGS mutations_sync = 2", one)
    lost = wrong(system.verify(code=4))
    assert lost.keys() == {"E1b", "E2a", "E3"}
    assert lost["E2a"][0].startswith(f"{identity} ")
    store.command("INSERT INTO trace_events SELECT * FROM kept")
    store.command("DROP TABLE kept")
    system.verify(code=0)


@BOTH
def test_a_part_of_the_log_and_one_that_still_grows(system: System, store: Client) -> None:
    whole = system.verify(code=0)
    minute = int(time.time()) // 60
    stamp = time.strftime("%Y-%m-%dT%H:%M", time.gmtime((minute + 1) * 60))
    part = system.verify("--from", whole["from"], "--to", stamp, code=0)
    assert by_id(part)["E2a"]["left"] == by_id(whole)["E2a"]["left"]
    assert by_id(system.verify("--from", stamp, code=0))["E2a"]["left"]["n"] == 0
    stored = "SELECT count() FROM trace_events"
    before = int(store.command(stored))
    fleet = system.fleet(120)
    try:
        deadline = time.monotonic() + 100
        while int(store.command(stored)) == before and time.monotonic() < deadline:
            time.sleep(0.1)
        grown: dict[str, Any] = {"to": None}
        while grown["to"] is None and time.monotonic() < deadline:
            grown = system.verify(code=0)
        while int(store.command(stored)) < before + 1100 and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(fleet.pid, signal.SIGTERM)  # what there is to see has been seen: it ends in good order
    finally:
        assert fleet.wait(120) == 0, fleet.tail()
    assert grown["to"] is not None
    final = by_id(system.verify(code=0))
    assert final["E2a"]["left"]["n"] > by_id(whole)["E2a"]["left"]["n"] + 1000


def run(home: Path, *args: str, command: str = "verify") -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("STEERSMAN_")} | environment(home)
    return subprocess.run([STEERSMAN, command, *args], capture_output=True, text=True, timeout=60, env=env, check=False)


def test_what_cannot_be_checked_is_said_in_one_sentence(tmp_path: Path) -> None:
    helped = run(tmp_path, "--help")
    assert helped.returncode == 0
    assert "Example" in helped.stdout
    address = f"127.0.0.1:{free_port()}"
    for args, code, word in (
        (["--brokers", address], 3, address),
        (["--from", "noon"], 2, "--from 'noon'"),
        (["--producer-ledger", str(tmp_path / "none.jsonl")], 2, "none.jsonl"),
    ):
        done = run(tmp_path, *args)
        assert done.returncode == code, done.stderr
        assert word in done.stderr
        assert "Traceback" not in done.stderr
