"""The doctor on who we are to Kafka: settings, files, certificates. Rights are in tests/trust/test_acl.py, on a broker."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from console.doctor.access_checks import default_role, security_checks
from steersman.kafka_security import KafkaOptions
from steersman.topics import Topics
from streams.access import roles
from tests.certificates import Authority, Pair


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*KafkaOptions.model_fields, "config"):
        monkeypatch.delenv(f"STEERSMAN_{name.upper()}", raising=False)
    return monkeypatch


@pytest.fixture
def pair(env: pytest.MonkeyPatch, tmp_path: Path) -> Pair:
    authority = Authority(tmp_path, days=100)
    pair = authority.issue("sink")
    env.setenv("STEERSMAN_KAFKA_CA_FILE", str(authority.ca))
    env.setenv("STEERSMAN_KAFKA_CERT_FILE", str(pair.cert))
    env.setenv("STEERSMAN_KAFKA_KEY_FILE", str(pair.key))
    return pair


def found(brokers: str = "k1:9093", days: float = 0) -> list[tuple[str, str]]:
    now = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    return [(one.check, one.level.value) for one in security_checks(brokers, now)]


def test_plain_text_is_fine_at_home_and_worth_a_warning_elsewhere(env: pytest.MonkeyPatch) -> None:
    assert found("127.0.0.1:9092") == [("kafka.security", "ok")]
    assert found("k1:9092") == [("kafka.security", "warning")]


def test_certificates_that_end(pair: Pair) -> None:
    assert found() == [("kafka.security", "ok")]
    assert found(days=80) == [
        ("kafka.security", "ok"),
        ("kafka.certificate", "warning"),
        ("kafka.certificate", "warning"),
    ]
    assert found(days=101)[1:] == [("kafka.certificate", "problem")] * 2
    assert found(days=-1)[1:] == [("kafka.certificate", "problem")] * 2


def test_secrets_that_everybody_may_read(pair: Pair, env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pair.key.chmod(0o644)
    assert found() == [("kafka.security", "ok"), ("kafka.secrets", "warning")]
    secret = tmp_path / "password"
    secret.write_text("x")
    secret.chmod(0o604)
    env.setenv("STEERSMAN_KAFKA_USERNAME", "sink")
    env.setenv("STEERSMAN_KAFKA_PASSWORD_FILE", str(secret))
    assert found()[1:] == [("kafka.secrets", "warning")] * 2


def test_what_cannot_be_used_is_a_problem(env: pytest.MonkeyPatch) -> None:
    env.setenv("STEERSMAN_KAFKA_CA_FILE", "/nowhere")
    [one] = security_checks("k1:9093")
    assert (one.check, one.level.value) == ("kafka.security", "problem")
    assert "STEERSMAN_KAFKA_CA_FILE: /nowhere cannot be read" in one.what
    assert one.fix


def test_the_role_is_that_of_the_user(env: pytest.MonkeyPatch) -> None:
    table = list(roles(Topics()))
    assert default_role(table) == "operator"
    env.setenv("STEERSMAN_KAFKA_USERNAME", "sink")
    assert default_role(table) == "sink"
    env.setenv("STEERSMAN_KAFKA_USERNAME", "somebody")
    assert default_role(table) == "operator"
