"""Apache Kafka as an operator should run it: StandardAuthorizer, nothing allowed that no ACL allows, SCRAM over TLS, and mTLS.

The plain listener on loopback is the super user's, as which users and ACLs are made; all that is tried comes over the other two.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from console.brokers import start_kafka
from console.children import free_port
from steersman.kafka_admin import KafkaAdmin
from tests.certificates import Authority


class SecuredKafka:
    """A running broker; `env` says how to come in as somebody.

    Parameters
    ----------
    folder
        For its data, certificates and password files.
    users
        SCRAM users to make, each also with a client certificate for the mTLS listener.

    Attributes
    ----------
    plain
        `host:port` of the super user's listener.
    authority
        Signed all certificates.
    passwords
        File with the password of each user.
    """

    def __init__(self, folder: Path, users: Sequence[str]) -> None:
        self.authority = Authority(folder / "tls")
        broker = self.authority.issue("broker", ("127.0.0.1", "localhost"))
        ports = {"SCRAM": free_port(), "MTLS": free_port()}
        tls = {
            f"listener.name.{name}.ssl.{key}": value
            for name in ("scram", "mtls")
            for key, value in {
                "keystore.type": "PEM",
                "keystore.location": str(broker.both),
                "truststore.type": "PEM",
                "truststore.location": str(self.authority.ca),
            }.items()
        }
        properties = {
            **tls,
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SCRAM:SASL_SSL,MTLS:SSL",
            "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.scram.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.mtls.ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": "User:ANONYMOUS",
            "offsets.topic.num.partitions": "1",
        }
        self._broker = start_kafka(folder / "kafka", properties=properties, listeners=ports)
        self.plain = self._broker.bootstrap
        self.scram, self.mtls = (f"127.0.0.1:{ports[name]}" for name in ("SCRAM", "MTLS"))
        self.passwords: dict[str, Path] = {}
        for user in users:
            self.passwords[user] = folder / f"{user}.password"
            self.passwords[user].touch(mode=0o600)
            self.passwords[user].write_text(secrets.token_urlsafe(18))
        try:
            self._make_users()
        except BaseException:
            self.stop()
            raise

    def _make_users(self) -> None:
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        wanted = [UserScramCredentialUpsertion(user, info, file.read_bytes()) for user, file in self.passwords.items()]
        admin = KafkaAdmin(self.plain)  # must outlive its futures
        for future in admin.alter_user_scram_credentials(wanted).values():
            future.result(20)

    def env(self, user: str, *, mtls: bool = False) -> dict[str, str]:
        """Environment of a process that comes in as a user: by SCRAM, or with his certificate."""
        common = {"STEERSMAN_KAFKA_CA_FILE": str(self.authority.ca)}
        if mtls:
            pair = self.authority.issue(user)
            return common | {
                "STEERSMAN_BROKERS": self.mtls,
                "STEERSMAN_KAFKA_CERT_FILE": str(pair.cert),
                "STEERSMAN_KAFKA_KEY_FILE": str(pair.key),
            }
        return common | {
            "STEERSMAN_BROKERS": self.scram,
            "STEERSMAN_KAFKA_USERNAME": user,
            "STEERSMAN_KAFKA_PASSWORD_FILE": str(self.passwords[user]),
        }

    def stop(self) -> None:
        """Stop the broker."""
        self._broker.child.kill()

    def __enter__(self) -> SecuredKafka:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
