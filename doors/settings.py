"""Settings of the doors, from the environment (``STEERSMAN_*``) and the command line."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from serving.access import LOOPBACK, Tokens, allowed_hosts, long_enough, read_tokens
from serving.health import STALL_S
from serving.settings import ServiceSettings
from steersman.errors import ConfigError


class DoorSettings(ServiceSettings):
    """What the doors need to know; every field is also an environment variable ``STEERSMAN_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="STEERSMAN_", frozen=True)

    brokers: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers")
    topic_prefix: str = Field("steersman", description="prefix of the topic names")
    registry_url: str | None = Field(None, description="schema registry; unset for none")
    tenant: str = Field("default", min_length=1, max_length=128, description="tenant of those who need no token")
    doors_host: str = Field("127.0.0.1", description="address to bind; any other than loopback needs a token")
    doors_port: int = Field(4318, ge=0, le=65535, description="port, 0 for any free one; 4318 is OTLP/HTTP's")
    doors_allow_hosts: str = Field("", description="further Host headers to accept, comma-separated")
    doors_token: SecretStr | None = Field(None, description="bearer token of the tenant; unset for none")
    doors_tokens_file: Path | None = Field(None, description="file of '<tenant> <token>' lines, for several tenants")
    doors_capture_content: bool = Field(False, description="keep prompts, answers, arguments and comments")
    doors_redact: bool = Field(True, description="take secrets and personal data out of all texts")
    doors_end_at_root: bool = Field(True, description="the end of a root span is the end of its trace")
    doors_keep_other: bool = Field(True, description="keep spans about no model, tool, retrieval or agent")
    doors_max_body_kib: int = Field(4096, ge=1, le=1 << 20, description="largest body as sent; unit: KiB")
    doors_max_inflated_kib: int = Field(8192, ge=1, le=1 << 20, description="largest body decompressed; unit: KiB")
    doors_max_spans: int = Field(10_000, ge=1, le=100_000, description="most spans of one request")
    doors_max_requests: int = Field(32, ge=1, le=10_000, description="requests answered at the same time")
    doors_max_per_s: float = Field(
        500.0,
        ge=0,
        description="requests of a tenant in the long run, twice as many at once; unit: per second, 0 for any",
    )
    doors_max_waiting: int = Field(50_000, ge=100, description="most events that wait for Kafka")
    doors_timeout_s: float = Field(
        8.0, gt=0, le=300, description="longest wait for a body, and for Kafka; unit: seconds"
    )
    otlp_topic: str = Field("otlp_spans", description="topic of the Collector's kafka exporter; empty for none")
    otlp_partitions: int = Field(12, ge=1, le=1000, description="partitions of that topic when it is created here")
    otlp_tenant_header: str = Field(
        "",
        description="header of its records that names the tenant; only where the broker lets none but the Collector write",
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port of /metrics, /livez, /readyz; unset for none"
    )
    metrics_host: str = Field("127.0.0.1", description="address of that port")
    stall_s: float = Field(STALL_S, gt=0, description="time without progress after which /livez fails; unit: seconds")

    @field_validator("registry_url", "doors_token", "doors_tokens_file", "metrics_port", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def group(self) -> str:
        """Consumer group of the Collector's topic."""
        return f"{self.topic_prefix}-doors"

    @property
    def hosts(self) -> frozenset[str]:
        """Host headers that are answered."""
        return allowed_hosts(self.doors_allow_hosts)

    def tokens(self) -> Tokens:
        """Return the tokens that open the doors.

        Raises
        ------
        ConfigError
            A token is too short, the file is no tokens file, or there is none although the doors are not on loopback.
        """
        found = {} if self.doors_tokens_file is None else read_tokens(self.doors_tokens_file)
        if self.doors_token is not None:
            found[long_enough(self.doors_token.get_secret_value(), "STEERSMAN_DOORS_TOKEN")] = self.tenant
        if not found and self.doors_host not in LOOPBACK:
            raise ConfigError(
                f"the doors would be open to everybody on {self.doors_host}: set STEERSMAN_DOORS_TOKEN or "
                "STEERSMAN_DOORS_TOKENS_FILE, or stay on 127.0.0.1"
            )
        return Tokens(found, self.tenant)


def load_settings(**given: object) -> DoorSettings:
    """Read the settings; what is given (and not None) wins over the environment.

    Raises
    ------
    ConfigError
        Names every setting that cannot be used.
    """
    return DoorSettings.load(**given)
