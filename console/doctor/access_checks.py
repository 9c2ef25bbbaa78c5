"""Checks of who we are to Kafka and what we may do there: security settings, files, certificates, rights of a role."""

from __future__ import annotations

import datetime as dt
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]
from cryptography import x509

from console.doctor.finding import Finding, fine, problem, warning
from serving.kafka import KafkaSettings
from steersman.errors import ConfigError
from steersman.kafka_admin import KafkaAdmin
from steersman.kafka_security import KafkaSecurity, kafka_security, on_loopback
from streams.access import CLUSTER, DEFAULT_ROLES, Grant, Role, allowed, commands

_TIMEOUT_S = 8.0
_SOON_DAYS = 30


def security_checks(brokers: str, now: dt.datetime | None = None) -> Iterator[Finding]:
    """Look at the settings ``STEERSMAN_KAFKA_*`` and the files that they name.

    Parameters
    ----------
    brokers
        Bootstrap servers.
    now
        Time at which certificates must be valid; now when not given.
    """
    try:
        security = kafka_security(brokers)
    except ConfigError as error:
        yield problem("kafka.security", str(error), "correct or unset the setting; docs/kafka-security.md has examples")
        return
    if security.protocol == "PLAINTEXT" and not on_loopback(brokers):
        yield warning(
            "kafka.security",
            f"{brokers} is spoken to in plain text, and nobody has to say who he is: whoever reaches the brokers can write policies",
            "give the brokers SASL_SSL and set STEERSMAN_KAFKA_USERNAME, _PASSWORD_FILE and _CA_FILE (docs/kafka-security.md), unless "
            "this network is closed, as that of docker-compose.yml",
        )
    else:
        who = f" as {security.username}" if security.username else ""
        yield fine("kafka.security", f"brokers are spoken to by {security.protocol}{who}")
    yield from _files(security)
    for variable, name in (("CA_FILE", security.ca_file), ("CERT_FILE", security.cert_file)):
        if name:
            yield from _certificates(f"STEERSMAN_KAFKA_{variable}", Path(name), now or dt.datetime.now(dt.UTC))


def _files(security: KafkaSecurity) -> Iterator[Finding]:
    options = KafkaSettings()
    secret = (options.kafka_password_file, options.kafka_key_password_file, options.kafka_key_file)
    for path in filter(None, secret):
        if path.stat().st_mode & stat.S_IRWXO:
            yield warning("kafka.secrets", f"every user of this machine may read or write {path}", f"chmod 600 {path}")


def _certificates(variable: str, path: Path, now: dt.datetime) -> Iterator[Finding]:
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        yield problem("kafka.certificate", f"{variable}: {path} holds no certificate ({error})", "name a PEM file")
        return
    for one in found:
        ends, subject = one.not_valid_after_utc, one.subject.rfc4514_string()
        if not one.not_valid_before_utc <= now <= ends:
            said = f"{variable}: {subject} in {path} is valid from {one.not_valid_before_utc:%F} to {ends:%F}"
            yield problem("kafka.certificate", said, "have a new one issued, or set this machine's clock")
        elif ends - now < dt.timedelta(days=_SOON_DAYS):
            said = f"{variable}: {subject} in {path} ends on {ends:%F %H:%M} UTC"
            yield warning("kafka.certificate", said, "have a new one issued; clients take it up when they start again")


def default_role(table: Sequence[str]) -> str:
    """Return the role of whoever runs the doctor: that of his user name where there is one, else the operator."""
    name = KafkaSettings().kafka_username
    return name if name in table else "operator"


class Rights:
    """What this principal may do, as the brokers tell it, against what a role needs.

    Parameters
    ----------
    admin, brokers
        The brokers.
    role
        The role.
    """

    def __init__(self, admin: KafkaAdmin, brokers: str, role: Role) -> None:
        self._admin = admin
        self._brokers = brokers
        self._role = role
        self._told = False
        self.hidden: set[str] = set()
        """Topics that exist or not: this principal may not even see that."""

    def topics(self, names: Sequence[str]) -> Iterator[Finding]:
        """Look at topics; says nothing of those that do not exist."""
        needed = {name: allowed(self._role, "TOPIC", name) for name in names}
        wanted = [name for name, operations in needed.items() if operations]
        if not wanted:
            return
        told: dict[str, Sequence[AclOperation] | None] = {}
        try:
            described = self._admin.describe_topics(TopicCollection(wanted), include_authorized_operations=True)
            for name, future in described.items():
                try:
                    told[name] = future.result(_TIMEOUT_S).authorized_operations
                except KafkaException as error:
                    if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                        self.hidden.add(name)
                        told[name] = ()
                    elif error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                        raise
        except KafkaException as error:
            yield warning(
                "kafka.rights",
                f"the broker does not say what this principal may do ({error.args[0].str()})",
                "nothing, where it has no authorizer; else allow DESCRIBE on the topics",
            )
            return
        for name, operations in told.items():
            yield from self._lacking("TOPIC", name, needed[name], operations)

    def others(self) -> Iterator[Finding]:
        """Look at the groups and the cluster."""
        rules = [rule for rule in self._role.rules if rule.resource == "GROUP"]
        for rule in rules:
            name = f"{rule.name}doctor" if rule.pattern == "PREFIXED" else rule.name
            try:
                described = self._admin.describe_consumer_groups([name], include_authorized_operations=True)
                operations = described[name].result(_TIMEOUT_S).authorized_operations
            except KafkaException as error:
                # A group that nobody has joined yet is an error to some brokers; those do not tell the rights to it.
                operations = () if error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED else None
            yield from self._lacking("GROUP", rule.name, rule.operations, operations, rule.pattern)
        if cluster := allowed(self._role, "CLUSTER", CLUSTER):
            try:
                cluster_now = self._admin.describe_cluster(include_authorized_operations=True).result(_TIMEOUT_S)
            except KafkaException:
                return  # the embedded broker
            # None at all comes as None, as from brokers that tell nothing.
            operations = cluster_now.authorized_operations or (() if self._told else None)
            yield from self._lacking("CLUSTER", CLUSTER, cluster, operations)

    def _lacking(
        self,
        resource: str,
        name: str,
        needed: Sequence[str],
        told: Sequence[AclOperation] | None,
        pattern: str = "LITERAL",
    ) -> Iterator[Finding]:
        if told is None:
            return
        self._told = True
        have = {operation.name for operation in told}
        lacking = [operation for operation in needed if operation not in have]
        if not lacking:
            return
        user = KafkaSettings().kafka_username or "NAME"
        line = next(commands([Grant(f"User:{user}", resource, name, pattern, one) for one in lacking], self._brokers))
        named = (
            ""
            if self._role.name in DEFAULT_ROLES and user == self._role.name
            else f" --principal {self._role.name}=User:{user}"
        )
        yield problem(
            "kafka.rights",
            f"a {self._role.name} needs {' and '.join(lacking)} on {resource.lower()} {name}; this principal may not",
            f"as a super user: steersman acl apply --yes --role {self._role.name}{named}, or: {line}",
        )
