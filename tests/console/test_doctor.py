"""The doctor on real Kafka and ClickHouse: content with a sound deployment, and finds what is planted, with its fix."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)
from confluent_kafka.cimpl import NewTopic
from typer.testing import CliRunner

from console.brokers import Broker
from console.children import free_port
from console.doctor.kafka_checks import skew
from console.doctor.topic_rules import TopicState, topic_findings
from console.main import app
from console.options import DEFAULT_POLICIES
from sinks.clickhouse import connect
from sinks.migrations import migrate
from steersman.registry import Registry
from steersman.signing import generate_keys
from steersman.topics import Topics
from streams.topics import create_topics, topic_specs
from tests.faults.gateway import Gateway
from tests.steersman.test_registry import Server


@dataclass
class Deployment:
    """A sound deployment, and what a case changes of it."""

    bootstrap: str
    clickhouse: str
    topics: Topics
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    args: list[str] = field(default_factory=list)

    def doctor(self) -> tuple[int, list[dict[str, Any]]]:
        env: dict[str, str | None] = {key: None for key in os.environ if key.startswith("STEERSMAN_")}
        env |= {
            "STEERSMAN_BROKERS": self.bootstrap,
            "STEERSMAN_CLICKHOUSE_URL": self.clickhouse,
            "STEERSMAN_TOPIC_PREFIX": self.topics.prefix,
            "STEERSMAN_POLICIES": str(DEFAULT_POLICIES),
            "STEERSMAN_HOME": str(self.folder),
            "STEERSMAN_DOORS_PORT": str(free_port()),
            **self.env,
        }
        args = ["--min-free-gib", "0.01", *self.args]
        done = CliRunner().invoke(app, ["doctor", "--json", *args], env=env)
        assert isinstance(done.exception, SystemExit | None), done.exception
        return done.exit_code, json.loads(done.stdout.splitlines()[-1])["findings"]

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    @contextlib.contextmanager
    def setting(self, topic: str, key: str, value: str) -> Iterator[None]:
        """Set a topic's setting, and set it back."""
        self.alter(topic, key, value)
        yield
        [spec] = [spec for spec in topic_specs(self.topics, 2) if spec.name == topic]
        self.alter(topic, key, spec.config[key])

    def alter(self, topic: str, key: str, value: str) -> None:
        entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        for future in self.admin.incremental_alter_configs([resource]).values():
            future.result(10)
        deadline = time.monotonic() + 10
        while self.described(topic)[key].value != value:  # the broker answers before it has taken it in
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def described(self, topic: str) -> dict[str, Any]:
        [future] = self.admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values()
        return dict(future.result(10))

    def elsewhere(self, leave_out: str = "", partitions: dict[str, int] | None = None) -> None:
        """Go to topics of another prefix, one missing or with so many partitions."""
        self.topics = Topics(f"doctor-{time.time_ns()}")
        specs = [spec for spec in topic_specs(self.topics, 2) if spec.name != f"{self.topics.prefix}.{leave_out}"]
        counts = {f"{self.topics.prefix}.{name}": count for name, count in (partitions or {}).items()}
        new = [
            NewTopic(
                s.name, num_partitions=counts.get(s.name, s.partitions), replication_factor=1, config=dict(s.config)
            )
            for s in specs
        ]
        for future in self.admin.create_topics(new).values():
            future.result(20)

    def file(self, name: str, text: str, mode: int = 0o600) -> str:
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def keys(self, name: str) -> tuple[Path, Path]:
        private, public = self.folder / f"{name}.key", self.folder / f"{name}.pub"
        generate_keys(private, public)
        return private, public


@pytest.fixture(scope="module")
def sound(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Topics]]:
    gateway = Gateway(tmp_path_factory.mktemp("doctor"))
    topics = Topics(f"doctor-{time.time_ns()}")
    create_topics(kafka.bootstrap, topics, 2)
    with contextlib.closing(connect(f"{gateway.url}/sound", create_database=True)) as client:
        migrate(client)
    yield kafka.bootstrap, f"{gateway.url}/sound", topics
    assert gateway.child.stop() == 0


@pytest.fixture
def deployment(sound: tuple[str, str, Topics], tmp_path: Path) -> Deployment:
    return Deployment(*sound, tmp_path)


def test_a_sound_deployment_has_no_problem(deployment: Deployment) -> None:
    private, public = deployment.keys("good")
    deployment.env = {"STEERSMAN_POLICY_SIGNING_KEY": str(private), "STEERSMAN_POLICY_KEYS": str(public)}
    deployment.args = ["--probe"]
    code, findings = deployment.doctor()
    assert [one for one in findings if one["level"] == "problem"] == []
    assert code == 0
    looked_at = {one["check"] for one in findings}
    assert {
        "settings", "policies", "keys", "kafka.reachable", "topic.config", "group.members", "kafka.write", "clock.broker",
        "clock.clickhouse", "registry", "clickhouse.version", "clickhouse.migrations", "disk.clickhouse", "disk.local",
        "port.doors",
    } <= looked_at  # fmt: skip
    assert all(one["fix"] for one in findings if one["level"] != "ok")
    assert not [name for name in deployment.admin.list_topics(timeout=5).topics if ".doctor." in name]


Plant = Callable[[Deployment], AbstractContextManager[None] | None]


def config(topic: str, key: str, value: str) -> Plant:
    return lambda d: d.setting(getattr(d.topics, topic), key, value)


def environment(**env: str) -> Plant:
    return lambda d: d.env.update({f"STEERSMAN_{key.upper()}": value for key, value in env.items()})


def unknown_key(d: Deployment) -> None:
    d.env["STEERSMAN_POLICY_SIGNING_KEY"] = str(d.folder / "nowhere.key")


def open_key(d: Deployment) -> None:
    private, _ = d.keys("open")
    private.chmod(0o644)
    d.env["STEERSMAN_POLICY_SIGNING_KEY"] = str(private)


def garbled_key(d: Deployment) -> None:
    d.env["STEERSMAN_POLICY_SIGNING_KEY"] = d.file("garbled.key", "-----BEGIN PRIVATE KEY-----\nno\n")


def other_pair(d: Deployment) -> None:
    (private, _), (_, public) = d.keys("one"), d.keys("two")
    d.env |= {"STEERSMAN_POLICY_SIGNING_KEY": str(private), "STEERSMAN_POLICY_KEYS": str(public)}


def private_as_public(d: Deployment) -> None:
    private, _ = d.keys("swapped")
    d.env["STEERSMAN_POLICY_KEYS"] = str(private)


def writable_public(d: Deployment) -> None:
    private, public = d.keys("writable")
    public.chmod(0o666)
    d.env |= {"STEERSMAN_POLICY_SIGNING_KEY": str(private), "STEERSMAN_POLICY_KEYS": str(public)}


def bad_policies(d: Deployment) -> None:
    d.env["STEERSMAN_POLICIES"] = d.file("policies.toml", '[[policy]]\nname = "a/b"\nbaseline = { model = "x" }\n')


def bad_prices(d: Deployment) -> None:
    d.env["STEERSMAN_PRICES"] = d.file(
        "prices.toml", '[[model]]\nprovider = "p"\nnames = ["m"]\nfrom = 2025-01-01\ninput = -1\n'
    )


@contextlib.contextmanager
def taken_port(d: Deployment) -> Iterator[None]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        d.env["STEERSMAN_DOORS_PORT"] = str(taken.getsockname()[1])
        yield


@contextlib.contextmanager
def registry(d: Deployment, *, registered: bool) -> Iterator[None]:
    """A registry without schemas, or with all of them and one subject that takes anything."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    d.env["STEERSMAN_REGISTRY_URL"] = server.url
    try:
        if registered:
            client = Registry(server.url, topics=d.topics)
            client.register()
            client.close()
            server.levels[f"{d.topics.reward}-value"] = "NONE"
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def database(d: Deployment, change: str, *, migrated: bool = True) -> None:
    """Go to another database, changed by a statement."""
    d.clickhouse = f"{d.clickhouse.rpartition('/')[0]}/d{time.time_ns()}"
    with contextlib.closing(connect(d.clickhouse, create_database=True)) as client:
        if migrated:
            migrate(client)
        if change:
            client.command(change)


def committed(d: Deployment, offset: int) -> None:
    """Let the workers' group have committed an offset."""
    consumer = Consumer({"bootstrap.servers": d.bootstrap, "group.id": f"{d.topics.prefix}-streams", "log_level": 0})
    consumer.commit(offsets=[TopicPartition(d.topics.trace, 0, offset)], asynchronous=False)
    consumer.close()


def produced(d: Deployment, count: int, at_ms: int) -> None:
    producer = Producer({"bootstrap.servers": d.bootstrap, "log_level": 0})
    for _ in range(count):
        producer.produce(d.topics.trace, b"x", partition=0, timestamp=at_ms)
    assert producer.flush(10) == 0


def topic_made_anew(d: Deployment) -> None:
    d.elsewhere()
    committed(d, 1000)


def records_lost(d: Deployment) -> None:
    d.elsewhere()
    produced(d, 10, int(time.time() * 1000))
    committed(d, 2)
    for future in d.admin.delete_records([TopicPartition(d.topics.trace, 0, 7)]).values():
        future.result(10)


def nobody_works(d: Deployment) -> None:
    d.elsewhere()
    produced(d, 3, int(time.time() * 1000))


def from_the_future(d: Deployment) -> None:
    d.elsewhere()
    produced(d, 1, int(time.time() * 1000) + 600_000)


def few_replicas(d: Deployment) -> None:
    d.elsewhere()
    d.alter(d.topics.trace, "min.insync.replicas", "2")


PLANTED: list[tuple[str, str, str, Plant]] = [
    # name, check that finds it, what its finding or fix names, how it is planted
    ("no broker", "kafka.reachable", "STEERSMAN_BROKERS", environment(brokers="127.0.0.1:1")),
    ("no CA file", "kafka.security", "STEERSMAN_KAFKA_CA_FILE", environment(kafka_ca_file="/nowhere/ca.pem")),
    ("another protocol", "kafka.reachable", "STEERSMAN_KAFKA_SECURITY_PROTOCOL", environment(kafka_security_protocol="SSL")),
    ("policy topic deletes", "topic.config", "cleanup.policy=delete", config("policy", "cleanup.policy", "delete")),
    ("state topic also deletes", "topic.config", "cleanup.policy", config("state", "cleanup.policy", "compact,delete")),
    ("trace kept an hour", "topic.config", "retention.ms=3600000", config("trace", "retention.ms", "3600000")),
    ("state compacts at once", "topic.config", "min.compaction.lag", config("state", "min.compaction.lag.ms", "0")),
    ("small policies only", "topic.config", "max.message.bytes", config("policy", "max.message.bytes", "1000000")),
    ("no dead-letter topic", "topic.missing", "topics --create", lambda d: d.elsewhere("dead-letter.v1")),
    ("no shard topic", "topic.missing", ".shard.v1", lambda d: d.elsewhere("shard.v1")),
    ("reward partitions", "topic.partitions", "reward.v1", lambda d: d.elsewhere(partitions={"reward.v1": 3})),
    ("state partitions", "topic.partitions", "state.v1", lambda d: d.elsewhere(partitions={"state.v1": 1})),
    ("two policy partitions", "topic.partitions", "policy.v1", lambda d: d.elsewhere(partitions={"policy.v1": 2})),
    ("more in sync than there are", "topic.replicas", "min.insync.replicas", few_replicas),
    ("topic made anew", "group.offset", "made anew", topic_made_anew),
    ("records lost to the group", "group.offset", "5 records are lost", records_lost),
    ("nobody works", "group.members", "start the stream worker", nobody_works),
    ("records from the future", "clock.producers", "in the future", from_the_future),
    ("no ClickHouse", "clickhouse.reachable", "STEERSMAN_CLICKHOUSE_URL", environment(clickhouse_url="http://127.0.0.1:1")),
    ("no ClickHouse address", "clickhouse.address", "not usable", environment(clickhouse_url="clickhouse:8123")),
    ("no such database", "clickhouse.reachable", "migrate", lambda d: setattr(d, "clickhouse", d.clickhouse + "_no")),
    ("not migrated", "clickhouse.migrations", "steersman migrate", lambda d: database(d, "", migrated=False)),
    ("a migration lacks", "clickhouse.migrations", "0006", lambda d: database(d, "ALTER TABLE schema_migrations DELETE WHERE version = 6")),
    ("ahead of the code", "clickhouse.migrations", "does not know", lambda d: database(d, f"INSERT INTO schema_migrations VALUES (99, 'x', '{'0' * 64}', now64(6))")),
    ("an act unanswered", "policy.acts", "freeze of t/p", lambda d: database(d, "INSERT INTO policy_acts (tenant, policy, act_id, ts, act, who, outcome, kafka_timestamp) VALUES ('t', 'p', 'a', now64(6), 'FREEZE', 'ann', 'ASKED', now64(3) - INTERVAL 1 HOUR)")),
    ("a table is gone", "clickhouse.tables", "rewards", lambda d: database(d, "DROP TABLE rewards")),
    ("no key file", "keys.private", "cannot be read", unknown_key),
    ("key open to all", "keys.private", "chmod 600", open_key),
    ("key garbled", "keys.private", "not an unencrypted private key", garbled_key),
    ("not a pair", "keys.pair", "every policy would be refused", other_pair),
    ("private key for agents", "keys.public", "is a private key", private_as_public),
    ("public key writable", "keys.public", "chmod go-w", writable_public),
    ("unknown signature mode", "keys.mode", "STEERSMAN_POLICY_SIGNATURES", environment(policy_signatures="maybe")),
    ("bad policies file", "policies", "policies.toml", bad_policies),
    ("no policies file", "policies", "cannot be read", environment(policies="nowhere.toml")),
    ("bad prices", "prices", "model[0].input", bad_prices),
    ("port taken", "port.doors", "STEERSMAN_DOORS_PORT", taken_port),
    ("one port for two", "port.conflict", "4999", environment(doors_port="4999", metrics_port="4999")),
    ("setting out of range", "settings", "STEERSMAN_SESSION_TIMEOUT_S", environment(session_timeout_s="0")),
    ("open doors", "settings", "open to everybody", environment(doors_host="0.0.0.0")),
    ("short token", "settings", "at least", environment(doors_token="abc")),
    ("bad prefix", "settings", "STEERSMAN_TOPIC_PREFIX", environment(topic_prefix="a_b")),
    ("disk full", "disk.local", "make room", lambda d: d.args.extend(["--min-free-gib", "100000000"])),
    ("schemas not registered", "registry.schemas", "python -m steersman.registry", lambda d: registry(d, registered=False)),
    ("subject takes anything", "registry.compatibility", "NONE", lambda d: registry(d, registered=True)),
    ("no registry", "registry.reachable", "STEERSMAN_REGISTRY_URL", environment(registry_url="http://127.0.0.1:1")),
]  # fmt: skip


ALSO_TRUE = {
    "disk.local": {"disk.clickhouse"},
    "group.offset": {"group.members"},
    "clock.producers": {"group.members"},
}
"""What else is wrong where such a thing is planted: records wait, and no worker runs here."""


@pytest.mark.parametrize(("check", "says", "plant"), [case[1:] for case in PLANTED], ids=[case[0] for case in PLANTED])
def test_what_is_planted_is_found(deployment: Deployment, check: str, says: str, plant: Plant) -> None:
    with plant(deployment) or contextlib.nullcontext():
        code, findings = deployment.doctor()
    problems = [one for one in findings if one["level"] == "problem"]
    assert code == 4
    assert any(one["check"] == check and says in f"{one['what']} {one['fix']}" for one in problems), problems
    # Nothing else is said to be wrong: one cause, one check.
    assert {one["check"] for one in problems} - ALSO_TRUE.get(check, set()) == {check}
    assert all(one["fix"] for one in problems)


def test_what_the_embedded_broker_does_not_know_is_no_finding(
    broker: Broker, sound: tuple[str, str, Topics], tmp_path: Path
) -> None:
    """It names the end of a partition up to one batch too low, and no members of groups."""
    topics = Topics(f"doctor-{time.time_ns()}")
    create_topics(broker.bootstrap, topics, 1)
    deployment = Deployment(broker.bootstrap, sound[1], topics, tmp_path)
    produced(deployment, 5, int(time.time() * 1000))
    group = f"{topics.prefix}-streams"

    def said() -> list[tuple[str, str]]:
        return [(one["check"], one["what"]) for one in deployment.doctor()[1] if group in one["what"]]

    member = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": group, "session.timeout.ms": 2000, "log_level": 0}
    )
    member.subscribe([topics.trace])
    deadline = time.monotonic() + 30
    while not member.assignment() and time.monotonic() < deadline:
        member.poll(0.1)
    low_end = member.get_watermark_offsets(TopicPartition(topics.trace, 0), timeout=10)[1]
    assert low_end < 5
    member.commit(offsets=[TopicPartition(topics.trace, 0, 5)], asynchronous=False)
    assert said() == [("group.lag", f"stream worker (group {group}): members at work, 0 records behind")]
    member.close()
    # Of a topic that was made anew, and of a group that nobody works in, it goes on telling.
    committed(deployment, 6)
    anew = f"group {group} has committed 6 of {topics.trace}[0], which ends at 5: the topic was made anew"
    assert ("group.offset", anew) in said()


def test_clocks() -> None:
    assert skew("c", "its clock", 100.0, 99.0, 101.0).level == "ok"
    assert skew("c", "its clock", 104.0, 99.0, 101.0).level == "ok"
    ahead = skew("c", "its clock", 161.0, 99.0, 101.0)
    assert (ahead.level, ahead.what) == ("problem", "its clock is 60.0 s ahead of this machine's")
    assert "60.0 s behind" in skew("c", "its clock", 39.0, 99.0, 101.0).what


def test_what_only_a_cluster_can_have() -> None:
    topics = Topics("t")
    specs = topic_specs(topics, 2)
    states = {spec.name: TopicState(spec.partitions, 3, 3, 0, spec.config) for spec in specs}
    assert list(topic_findings(specs, states, topics, "k:9092", 3)) == []
    states[topics.trace] = TopicState(2, 3, 2, 1, {})
    states[topics.alert] = TopicState(1, 1, 1, 0, {})
    states["t.trace.v2"] = states[topics.alert]
    found = [(one.check, one.level.value) for one in topic_findings(specs, states, topics, "k:9092", 3)]
    assert found == [
        ("topic.leader", "problem"),
        ("topic.replicas", "warning"),
        ("topic.replicas", "warning"),
        ("topic.unknown", "warning"),
    ]
