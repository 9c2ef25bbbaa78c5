"""Least rights on Apache Kafka with its authorizer: the matrix, the services as their principals, `steersman acl`, the doctor."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AclBindingFilter, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from typer.testing import CliRunner

from console.children import Child
from console.main import app
from steersman.errors import ConfigError, Unreachable
from steersman.kafka_admin import KafkaAdmin
from steersman.topics import Topics
from streams.topics import create_topics, existing_partitions
from tests.faults.gateway import Gateway
from tests.trust.part_acl import EXPECTED, STRANGER, attack, found, grant
from tests.trust.part_credentials import LIVE, FullRun, search
from tests.trust.secured_kafka import SecuredKafka


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    try:
        kafka = SecuredKafka(tmp_path_factory.mktemp("secured"), list(EXPECTED))
    except ConfigError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield kafka
    kafka.stop()


@pytest.fixture(scope="module")
def live(secured: SecuredKafka) -> SecuredKafka:
    """With topics and rights of a deployment."""
    grant(secured, LIVE)
    return secured


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path / "clickhouse")
    yield gateway
    assert gateway.child.stop() == 0


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("STEERSMAN_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def steersman(kafka: SecuredKafka, role: str | None, prefix: str, *args: str) -> tuple[int, str]:
    """Run a command as a role, or as the super user; returns the exit code and standard output."""
    env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("STEERSMAN_")}
    env |= {"STEERSMAN_BROKERS": kafka.plain} if role is None else kafka.env(role)
    env |= {"STEERSMAN_TOPIC_PREFIX": prefix, "STEERSMAN_OTLP_TOPIC": f"{prefix}-otlp"}
    done = CliRunner().invoke(app, list(args), env=env)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return -1, f"{done.exception}"
    return done.exit_code, done.stdout


def until(ready: Callable[[], bool], child: Child | None = None, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, child and child.tail(40)
        assert child is None or child.exit_code is None, child.tail(40)
        time.sleep(0.05)


def test_everybody_may_what_he_must_and_nothing_else(secured: SecuredKafka) -> None:
    topics = Topics("trial")
    grant(secured, topics)
    what = found(attack(secured, topics), print)
    assert not what.problems
    assert what.totals["acl_failures"] == 0
    assert what.totals["acl_checks"] >= 300
    assert what.totals["acl_refusals"] >= 200


def test_the_matrix_notices_a_right_too_many_and_one_too_few(secured: SecuredKafka) -> None:
    topics = Topics("control")
    grant(secured, topics)
    code, _ = steersman(
        secured, None, "control", "acl", "apply", "--role", "learner", "--principal", "learner=User:agent", "--yes"
    )
    assert code == 0
    anything: Any = None
    wanted = AclBindingFilter(
        ResourceType.TOPIC,
        topics.policy,
        ResourcePatternType.LITERAL,
        "User:page",
        anything,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    admin = KafkaAdmin(secured.plain)
    [gone] = admin.delete_acls([wanted]).values()
    assert len(gone.result(10)) == 1
    wrong = {str(one) for one in attack(secured, topics, ["agent", "page"]) if not one.held}
    assert "agent writes policy: done, should be refused" in wrong
    assert "agent reads reward: done, should be refused" in wrong
    assert "page reads policy: TOPIC_AUTHORIZATION_FAILED, should be allowed" in wrong


def test_the_services_do_their_work_as_their_principals_and_tell_no_credential(
    live: SecuredKafka, gateway: Gateway, clean: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Trace and learning stage apart, one by SCRAM and one by certificate; sink, doors and page; the agent by certificate."""
    full = FullRun(live, gateway, tmp_path / "run")
    full.go(print)
    what = search(full)
    assert not what.problems
    assert what.totals["credentials_found"] == 0
    assert what.totals["credentials"] >= 20


def refused(why: str, admin: KafkaAdmin, brokers: str) -> None:
    until(lambda: why in str(admin.unreachable()))
    with pytest.raises(Unreachable, match=why):
        existing_partitions(admin, brokers, timeout_s=0.1)


def test_a_stranger_is_told_why(secured: SecuredKafka, clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in secured.env(STRANGER).items():
        clean.setenv(name, value)
    assert existing_partitions(KafkaAdmin(secured.scram), secured.scram) == {}
    with pytest.raises(ConfigError, match="steersman doctor --role"):
        create_topics(secured.scram, Topics("trial"), 1)
    (tmp_path / "wrong").write_text("not the password")
    clean.setenv("STEERSMAN_KAFKA_PASSWORD_FILE", str(tmp_path / "wrong"))
    refused("the brokers refuse who we say we are", KafkaAdmin(secured.scram), secured.scram)
    clean.setenv("STEERSMAN_KAFKA_CA_FILE", "")
    refused("no TLS connection comes about", KafkaAdmin(secured.scram), secured.scram)
    for name in ("USERNAME", "PASSWORD_FILE", "CA_FILE"):
        clean.delenv(f"STEERSMAN_KAFKA_{name}")
    refused("not the protocol of that port", KafkaAdmin(secured.scram), secured.scram)


def test_acl_apply_is_a_dry_run_first_and_list_compares(secured: SecuredKafka) -> None:
    options = ("--role", "sink", "--principal", "sink=User:store", "--json")
    code, said = steersman(secured, None, "fresh", "acl", "list", *options)
    rows = [json.loads(line) for line in said.splitlines()]
    assert (code, {row["state"] for row in rows}) == (4, {"missing"})
    code, said = steersman(secured, None, "fresh", "acl", "apply", *options)
    planned = json.loads(said)
    assert (code, planned["dry_run"], len(planned["acls"])) == (0, True, len(rows))
    assert steersman(secured, None, "fresh", "acl", "list", *options)[0] == 4
    code, said = steersman(secured, None, "fresh", "acl", "apply", *options, "--yes")
    assert (code, json.loads(said)["dry_run"]) == (0, False)
    code, said = steersman(secured, None, "fresh", "acl", "list", *options)
    assert (code, {json.loads(line)["state"] for line in said.splitlines()}) == (0, {"there"})
    code, said = steersman(secured, None, "fresh", "acl", "apply", *options, "--yes")
    assert (json.loads(said)["acls"], json.loads(said)["there"]) == ([], len(rows))
    code, said = steersman(
        secured, None, "fresh", "acl", "list", "--role", "page", "--principal", "page=User:store", "--json"
    )
    assert "extra" in {json.loads(line)["state"] for line in said.splitlines()}
    # The operator sees ACLs and changes none; an agent does not even see them.
    assert steersman(secured, "operator", "fresh", "acl", "list", *options)[0] == 0
    code, said = steersman(
        secured, "operator", "fresh", "acl", "apply", "--role", "door", "--principal", "door=User:x", "--yes"
    )
    assert (code, "super.users" in said) == (-1, True)
    code, said = steersman(secured, "agent", "fresh", "acl", "list")
    assert (code, "may not see ACLs" in said) == (-1, True)


def doctor(kafka: SecuredKafka, role: str, *args: str) -> list[dict[str, Any]]:
    _, said = steersman(kafka, role, "live", "doctor", "--json", "--clickhouse", "http://127.0.0.1:1", *args)
    return [one for one in json.loads(said.splitlines()[-1])["findings"] if one["check"].startswith(("kafka", "topic"))]


def test_the_doctor_says_which_rights_a_service_lacks(live: SecuredKafka) -> None:
    for role in ("sink", "operator", "processor"):
        findings = doctor(live, role)
        assert [one for one in findings if one["level"] != "ok"] == [], role
        assert any(f"SASL_SSL as {role}" in one["what"] for one in findings)
    lacking = [one for one in doctor(live, "sink", "--role", "worker") if one["check"] == "kafka.rights"]
    assert any("a worker needs WRITE on topic live.policy.v1" in one["what"] for one in lacking)
    assert any("READ and WRITE on topic live.state.v1" in one["what"] for one in lacking)
    assert any("READ on group live-streams" in one["what"] for one in lacking)
    assert all("steersman acl apply --yes --role worker --principal worker=User:sink" in one["fix"] for one in lacking)
    assert all("kafka-acls.sh" in one["fix"] for one in lacking)
