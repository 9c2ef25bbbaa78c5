"""One set of security settings, mapped to librdkafka, aiokafka and Faust, and refused with a sentence that helps."""

from __future__ import annotations

import ast
import ssl
from pathlib import Path
from typing import Any

import faust
import pytest
from confluent_kafka import Consumer, KafkaError, Producer

from console.children import ROOT
from steersman.errors import ConfigError
from steersman.kafka_admin import KafkaAdmin, why_refused
from steersman.kafka_config import CONSUMER_LIMITS, client_config, follower_config, group_config, producer_config
from steersman.kafka_security import KafkaOptions, kafka_security, on_loopback
from streams.credentials import faust_credentials
from streams.topics import MAX_STATE_BYTES
from tests.certificates import Authority, Pair

HOME, AWAY = "127.0.0.1:9092", "127.0.0.1:9092,k1.example:9092"
PRODUCT = ("steersman", "streams", "sinks", "doors", "page", "console", "serving", "learners", "examples")
SASL = {"kafka_username": "sink", "kafka_password": "s3cret-of-sink"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("agent")


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in KafkaOptions.model_fields:
        monkeypatch.delenv(f"STEERSMAN_{name.upper()}", raising=False)
    monkeypatch.delenv("STEERSMAN_CONFIG", raising=False)
    return monkeypatch


def test_nothing_set_is_plaintext(clean: pytest.MonkeyPatch) -> None:
    security = kafka_security(AWAY)
    assert (security.protocol, security.librdkafka(), security.ssl_context()) == ("PLAINTEXT", {}, None)
    assert faust_credentials(security) is None
    assert client_config(AWAY) == {"bootstrap.servers": AWAY}


def test_scram_over_tls(authority: Authority) -> None:
    security = kafka_security(AWAY, {**SASL, "kafka_ca_file": str(authority.ca)})
    assert security.librdkafka() == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "sink",
        "sasl.password": "s3cret-of-sink",
        "ssl.ca.location": str(authority.ca),
    }
    credentials = faust_credentials(security)
    assert isinstance(credentials, faust.SASLCredentials)
    assert (credentials.protocol.value, credentials.mechanism.value) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (credentials.username, credentials.password) == ("sink", "s3cret-of-sink")
    context = credentials.ssl_context
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert [one["subject"] for one in context.get_ca_certs()] == [((("commonName", "steersman tests"),),)]
    assert "s3cret" not in f"{security!r} {credentials!r}"


def test_a_client_certificate_is_who_we_are(authority: Authority, pair: Pair) -> None:
    given = {"kafka_ca_file": authority.ca, "kafka_cert_file": pair.cert, "kafka_key_file": pair.key}
    security = kafka_security(AWAY, given)
    assert security.librdkafka() == {
        "security.protocol": "SSL",
        "ssl.ca.location": str(authority.ca),
        "ssl.certificate.location": str(pair.cert),
        "ssl.key.location": str(pair.key),
    }
    assert isinstance(faust_credentials(security), faust.SSLCredentials)
    one_file = kafka_security(AWAY, {**given, "kafka_cert_file": pair.both, "kafka_key_file": pair.both})
    assert one_file.ssl_context() is not None
    both = kafka_security(AWAY, {**given, **SASL}).librdkafka()
    assert both["security.protocol"] == "SASL_SSL"
    assert "ssl.key.location" in both


def test_an_encrypted_key(authority: Authority, tmp_path: Path) -> None:
    locked = authority.issue("locked", password="key-pw")
    given: dict[str, Any] = {"kafka_cert_file": locked.cert, "kafka_key_file": locked.key}
    with pytest.raises(ConfigError, match="KEY_PASSWORD_FILE"):
        kafka_security(AWAY, given)
    file = tmp_path / "password"
    file.write_text("key-pw\n")
    security = kafka_security(AWAY, {**given, "kafka_key_password_file": file})
    assert security.librdkafka()["ssl.key.password"] == "key-pw"
    Producer({**security.librdkafka(), "bootstrap.servers": HOME, "log_level": 0})  # librdkafka opens it as well


def test_environment_over_file_and_secrets_from_files(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret, settings = tmp_path / "password", tmp_path / "steersman.toml"
    secret.write_text("from a file\n")
    settings.write_text(f'kafka_username = "toml"\nkafka_password_file = "{secret}"\n')
    clean.setenv("STEERSMAN_CONFIG", str(settings))
    first = kafka_security(HOME)
    assert (first.protocol, first.username, first.password) == ("SASL_SSL", "toml", "from a file")
    clean.setenv("STEERSMAN_KAFKA_USERNAME", "env")
    clean.setenv("STEERSMAN_KAFKA_CA_FILE", "")  # as docker compose sets what has no value
    assert kafka_security(HOME).username == "env"
    secret.write_text("rotated")
    assert kafka_security(HOME).password == "rotated"


WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("STEERSMAN_KAFKA_SECURITY_PROTOCOL", "use one of PLAINTEXT, SSL", {"kafka_security_protocol": "TLS"}),
    ("STEERSMAN_KAFKA_SASL_MECHANISM", "SCRAM-SHA-512", {**SASL, "kafka_sasl_mechanism": "GSSAPI"}),
    ("needs STEERSMAN_KAFKA_PASSWORD_FILE", "SASL_SSL", {"kafka_username": "sink"}),
    ("needs STEERSMAN_KAFKA_USERNAME", "SASL_SSL", {"kafka_security_protocol": "sasl_ssl"}),
    ("STEERSMAN_KAFKA_USERNAME", "would not be used", {"kafka_password": "x"}),
    ("STEERSMAN_KAFKA_USERNAME", "by SSL", {**SASL, "kafka_security_protocol": "SSL"}),
    ("SASL_PLAINTEXT", "over a network: use SASL_SSL", {**SASL, "kafka_security_protocol": "SASL_PLAINTEXT"}),
    ("STEERSMAN_KAFKA_CA_FILE", "/nowhere/ca.pem cannot be read", {"kafka_ca_file": "/nowhere/ca.pem"}),
    ("STEERSMAN_KAFKA_PASSWORD_FILE", "cannot be read", {"kafka_username": "a", "kafka_password_file": "/nowhere/pw"}),
    ("STEERSMAN_KAFKA_PASSWORD_FILE", "is empty", {"kafka_username": "a", "kafka_password_file": "/dev/null"}),
    ("are both set", "better the file", {**SASL, "kafka_password_file": "/dev/null"}),
    ("STEERSMAN_KAFKA_CA_FILE", "no PEM file", {"kafka_ca_file": __file__}),
    ("STEERSMAN_KAFKA_CA_FILE", "no TLS", {"kafka_ca_file": __file__, "kafka_security_protocol": "PLAINTEXT"}),
    ("STEERSMAN_KAFKA_KEY_FILE", "a pair", {"kafka_cert_file": __file__}),
]


@pytest.mark.parametrize(("names", "says", "given"), WRONG, ids=[f"{case[0]} {case[1]}" for case in WRONG])
def test_what_cannot_be_used_is_named(names: str, says: str, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        kafka_security(AWAY, given)
    assert names in str(refused.value)
    assert says in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_certificate_and_the_key_of_another(authority: Authority, pair: Pair) -> None:
    other = authority.issue("other")
    with pytest.raises(ConfigError, match="belong together"):
        kafka_security(AWAY, {"kafka_cert_file": pair.cert, "kafka_key_file": other.key})


def test_plain_text_passwords_stay_on_this_machine() -> None:
    given = {**SASL, "kafka_security_protocol": "SASL_PLAINTEXT"}
    security = kafka_security("localhost:9092,[::1]:9093", given)
    assert security.librdkafka()["security.protocol"] == "SASL_PLAINTEXT"
    assert faust_credentials(security).protocol.value == "SASL_PLAINTEXT"
    assert not on_loopback("127.0.0.1.example.org:9092")
    assert not on_loopback("0.0.0.0:9092")


def test_every_configuration_carries_it(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("STEERSMAN_KAFKA_USERNAME", "sink")
    clean.setenv("STEERSMAN_KAFKA_PASSWORD", "pw")
    for config in (client_config(HOME), producer_config(HOME), follower_config(HOME), group_config(HOME, "g")):
        assert config["security.protocol"] == "SASL_SSL"
        assert config["sasl.username"] == "sink"
    assert producer_config(HOME, {"sasl.username": "given"})["sasl.username"] == "given"
    Producer(producer_config(HOME, {"log_level": 0}))
    Consumer(follower_config(HOME, {"log_level": 0})).close()
    KafkaAdmin(HOME)
    clean.delenv("STEERSMAN_KAFKA_PASSWORD")
    with pytest.raises(ConfigError, match="PASSWORD"):
        KafkaAdmin(HOME)


def test_every_consumer_is_bounded() -> None:
    """By the settings that librdkafka has for it: one configuration without them would hold what 50 MiB of gzip become."""
    for config in (follower_config(HOME), group_config(HOME, "g")):
        assert config.items() >= CONSUMER_LIMITS.items()
    assert CONSUMER_LIMITS["fetch.max.bytes"] <= 1 << 20
    assert CONSUMER_LIMITS["receive.message.max.bytes"] >= MAX_STATE_BYTES + (1 << 20), "a policy must come through"
    found = 0
    for folder in PRODUCT:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                keys = node.keys if isinstance(node, ast.Dict) else ()
                if any(isinstance(key, ast.Constant) and key.value == "group.id" for key in keys):
                    merged = [ast.unparse(v) for k, v in zip(node.keys, node.values, strict=True) if k is None]
                    assert "CONSUMER_LIMITS" in merged, f"{path}:{node.lineno}"
                    found += 1
    assert found >= 6


def test_headers_are_read_in_one_place() -> None:
    """`steersman.headers.headers_of` bears names that are not UTF-8; confluent-kafka's own method does not."""
    asked = {
        str(path.relative_to(ROOT))
        for folder in PRODUCT
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".headers")
    }
    assert not asked


def test_why_a_broker_hangs_up() -> None:
    assert "STEERSMAN_KAFKA_USERNAME" in why_refused(KafkaError(KafkaError._AUTHENTICATION))
    assert "STEERSMAN_KAFKA_CA_FILE" in why_refused(KafkaError(KafkaError._SSL))
    wrong_port = "Disconnected (verify that security.protocol is correctly configured)"
    assert "STEERSMAN_KAFKA_SECURITY_PROTOCOL" in why_refused(KafkaError(KafkaError._TRANSPORT, wrong_port))
    assert why_refused(KafkaError(KafkaError._TRANSPORT, "Connection refused")) == ""


def test_no_client_is_made_another_way() -> None:
    """A new client that writes its own ``bootstrap.servers`` would go round the security settings."""
    made = {}
    for folder in PRODUCT:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                keys = node.keys if isinstance(node, ast.Dict) else ()
                if any(isinstance(key, ast.Constant) and key.value == "bootstrap.servers" for key in keys):
                    made[str(path.relative_to(ROOT))] = node.lineno
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("AdminClient"):
                    made[str(path.relative_to(ROOT))] = node.lineno
    assert set(made) == {"steersman/kafka_config.py"}
