"""How clients prove to Kafka who they are, and how they know the broker: TLS and SASL, from ``STEERSMAN_KAFKA_*``.

Every Kafka client of this project, agents' and services', takes its security from `kafka_security`, so a process has one
identity. The names are those of Kafka's own clients (``security.protocol``, ``sasl.mechanism``); what is a protocol and what a
mechanism is in Kafka's documentation, section Security. SCRAM is RFC 5802. The broker's certificate and host name are always
checked.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from steersman.errors import ConfigError
from steersman.settings_file import settings_file

PREFIX: Final = "STEERSMAN_"
PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
_MAX_SECRET_BYTES = 4096


class KafkaOptions(BaseModel):
    """What may be set; every field is an environment variable ``STEERSMAN_<FIELD>`` and a key of the settings file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kafka_security_protocol: str = Field(
        default="", description="PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL; unset: by the rest"
    )
    kafka_sasl_mechanism: str = Field(default="SCRAM-SHA-512", description="SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN")
    kafka_username: str = Field(default="", description="SASL user; unset for none")
    kafka_password: SecretStr | None = Field(default=None, description="its password")
    kafka_password_file: Path | None = Field(default=None, description="file that holds the password instead")
    kafka_ca_file: Path | None = Field(
        default=None, description="PEM of the authority that signed the brokers; unset: the system's"
    )
    kafka_cert_file: Path | None = Field(default=None, description="PEM of this client's certificate (mTLS)")
    kafka_key_file: Path | None = Field(default=None, description="PEM of its private key")
    kafka_key_password: SecretStr | None = Field(default=None, description="password of that key")
    kafka_key_password_file: Path | None = Field(default=None, description="file that holds it instead")

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object, info: Any) -> object:
        return cls.model_fields[info.field_name].default if value == "" else value


@dataclass(frozen=True)
class KafkaSecurity:
    """Security of a process's Kafka clients, checked; made by `kafka_security`.

    Attributes
    ----------
    protocol, mechanism
        One of `PROTOCOLS`; one of `MECHANISMS`, empty without SASL.
    username, password
        SASL user; empty without SASL. Never printed.
    ca_file, cert_file, key_file
        PEM files, empty for none.
    key_password
        Of the private key, empty for none. Never printed.
    """

    protocol: str = "PLAINTEXT"
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    key_password: str = field(default="", repr=False)

    @property
    def encrypted(self) -> bool:
        """Whether the connection is TLS."""
        return self.protocol in ("SSL", "SASL_SSL")

    def librdkafka(self) -> dict[str, str]:
        """Settings of a confluent-kafka client; empty for PLAINTEXT."""
        if self.protocol == "PLAINTEXT":
            return {}
        settings = {
            "security.protocol": self.protocol,
            "sasl.mechanism": self.mechanism,
            "sasl.username": self.username,
            "sasl.password": self.password,
            "ssl.ca.location": self.ca_file,
            "ssl.certificate.location": self.cert_file,
            "ssl.key.location": self.key_file,
            "ssl.key.password": self.key_password,
        }
        return {name: value for name, value in settings.items() if value}

    def ssl_context(self) -> ssl.SSLContext | None:
        """Context of a Python client that checks the broker's certificate and host name; None where there is no TLS.

        Raises
        ------
        ConfigError
            A file is not what it should be, or certificate and key are no pair.
        """
        if not self.encrypted:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"STEERSMAN_KAFKA_CA_FILE: {self.ca_file} is no PEM file of certificates ({_said(error)}); name the certificate "
                "of the authority that signed the brokers' certificates"
            ) from error
        if self.cert_file:
            try:
                # A function, so that OpenSSL does not ask at the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, lambda: self.key_password)
            except (OSError, ssl.SSLError, ValueError) as error:
                raise ConfigError(
                    f"STEERSMAN_KAFKA_CERT_FILE {self.cert_file} and STEERSMAN_KAFKA_KEY_FILE {self.key_file} cannot be used "
                    f"({_said(error)}): both must be PEM and belong together; an encrypted key also needs "
                    "STEERSMAN_KAFKA_KEY_PASSWORD_FILE"
                ) from error
        return context


def kafka_security(brokers: str, given: Mapping[str, Any] | None = None) -> KafkaSecurity:
    """Return the security of this process's Kafka clients.

    Parameters
    ----------
    brokers : str
        ``host:port`` list: what may be said to a broker on this machine may not be said over a network.
    given : mapping, optional
        Fields of `KafkaOptions` instead of those of the environment and the settings file.

    Raises
    ------
    ConfigError
        Names the setting that cannot be used, and what to write instead.
    """
    options = KafkaOptions.model_validate(read_options() if given is None else given)
    protocol = _protocol(options)
    sasl, tls = protocol.startswith("SASL_"), protocol.endswith("SSL")
    mechanism = options.kafka_sasl_mechanism.upper() if sasl else ""
    if sasl and mechanism not in MECHANISMS:
        raise ConfigError(f"STEERSMAN_KAFKA_SASL_MECHANISM is {mechanism!r}; use one of {', '.join(MECHANISMS)}")
    password = _secret(options, "kafka_password")
    if sasl and not (options.kafka_username and password):
        lacking = "USERNAME" if not options.kafka_username else "PASSWORD_FILE (or STEERSMAN_KAFKA_PASSWORD)"
        raise ConfigError(f"Kafka is to be spoken to by {protocol}, which needs STEERSMAN_KAFKA_{lacking}")
    if not sasl and (options.kafka_username or password):
        raise ConfigError(
            f"STEERSMAN_KAFKA_USERNAME and STEERSMAN_KAFKA_PASSWORD would not be used by {protocol}: set "
            "STEERSMAN_KAFKA_SECURITY_PROTOCOL=SASL_SSL, or unset them"
        )
    if protocol == "SASL_PLAINTEXT" and not on_loopback(brokers):
        raise ConfigError(
            f"STEERSMAN_KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT would authenticate to {brokers} in plain text, over a network: use "
            "SASL_SSL, with the certificate of the brokers' authority in STEERSMAN_KAFKA_CA_FILE"
        )
    security = KafkaSecurity(
        protocol,
        mechanism,
        options.kafka_username,
        password,
        _file(options, "kafka_ca_file", tls),
        _file(options, "kafka_cert_file", tls),
        _file(options, "kafka_key_file", tls),
        _secret(options, "kafka_key_password"),
    )
    if bool(security.cert_file) != bool(security.key_file):
        lacking = "KEY" if security.cert_file else "CERT"
        raise ConfigError(
            f"a client certificate is a pair: set STEERSMAN_KAFKA_{lacking}_FILE as well (both may be one file)"
        )
    security.ssl_context()  # now, with a sentence that names the file: clients would only say that they cannot connect
    return security


def read_options() -> dict[str, Any]:
    """Fields of `KafkaOptions` that the environment or the settings file set, the former first."""
    file = settings_file()
    values = {name: os.environ.get(f"{PREFIX}{name.upper()}") or file.get(name) for name in KafkaOptions.model_fields}
    return {name: str(value) for name, value in values.items() if value is not None}


def on_loopback(brokers: str) -> bool:
    """Whether all brokers of a ``host:port`` list are on this machine."""
    hosts = [part.strip().rpartition("://")[2].rpartition(":")[0].strip("[]") for part in brokers.split(",")]
    return all(map(_is_loopback, hosts))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _protocol(options: KafkaOptions) -> str:
    """The protocol named, or else the safest that what is set can mean."""
    if named := options.kafka_security_protocol.upper():
        if named not in PROTOCOLS:
            raise ConfigError(f"STEERSMAN_KAFKA_SECURITY_PROTOCOL is {named!r}; use one of {', '.join(PROTOCOLS)}")
        return named
    if options.kafka_username:
        return "SASL_SSL"
    return "SSL" if options.kafka_ca_file or options.kafka_cert_file or options.kafka_key_file else "PLAINTEXT"


def _file(options: KafkaOptions, name: str, tls: bool) -> str:
    path: Path | None = getattr(options, name)
    variable = f"{PREFIX}{name.upper()}"
    if path is None:
        return ""
    if not tls:
        raise ConfigError(
            f"{variable} is set, but there is no TLS: set STEERSMAN_KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL, or unset it"
        )
    _read(path, variable, 1)
    return str(path)


def _secret(options: KafkaOptions, name: str) -> str:
    told: SecretStr | None = getattr(options, name)
    path: Path | None = getattr(options, f"{name}_file")
    value, variable = told.get_secret_value() if told else "", f"{PREFIX}{name.upper()}"
    if path is None:
        return value
    if value:
        raise ConfigError(f"{variable} and {variable}_FILE are both set: use one of them, better the file")
    try:
        value = _read(path, f"{variable}_FILE", _MAX_SECRET_BYTES).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{variable}_FILE: {path} is not UTF-8 text") from None
    if not value:
        raise ConfigError(f"{variable}_FILE: {path} is empty; write the password into it, and nothing else")
    return value


def _read(path: Path, variable: str, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise ConfigError(
            f"{variable}: {path} cannot be read ({error.strerror}); name a file that this user may read"
        ) from error


def _said(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
