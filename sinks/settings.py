"""Settings of the sink, from the environment (`STEERSMAN_*`) and the command line."""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from serving.health import STALL_S
from serving.settings import ServiceSettings
from sinks.fold import SETTLE_S


class SinkSettings(ServiceSettings):
    """What the sink needs to know; every field is also an environment variable `STEERSMAN_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="STEERSMAN_", frozen=True)

    brokers: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers")
    topic_prefix: str = Field("steersman", description="prefix of the topic names")
    clickhouse_url: str = Field("http://127.0.0.1:8123", description="http(s)://[user:password@]host:port[/database]")
    registry_url: str | None = Field(None, description="schema registry; unset for none")
    sink_group: str | None = Field(None, description="consumer group; unset for `<topic_prefix>-sink`")
    group_instance_id: str | None = Field(
        None,
        max_length=200,
        description="name of this sink in its group, for static membership; of its own, unset for none",
    )
    sink_flush_s: float = Field(
        1.0,
        gt=0,
        le=60,
        description="longest time a row waits before its insert, half as long again where many come; unit: seconds",
    )
    sink_flush_rows: int = Field(50_000, ge=1, le=500_000, description="rows of a table that make an insert at once")
    sink_flush_mib: int = Field(
        64, ge=1, le=1024, description="Kafka bytes of a table that make an insert at once; unit: MiB"
    )
    sink_retry_max_s: float = Field(15.0, gt=0, le=300, description="longest pause between two attempts; unit: seconds")
    sink_fold_every_s: float = Field(
        300.0, ge=0, le=86_400, description="pause between two folds of settled traces, 0 for none; unit: seconds"
    )
    sink_fold_settle_s: float = Field(
        SETTLE_S,
        ge=0,
        le=86_400,
        description="age from which stored events are folded, longer than any insert takes; unit: seconds",
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port of /metrics, /livez, /readyz; unset for none"
    )
    metrics_host: str = Field("127.0.0.1", description="address of that port")
    stall_s: float = Field(
        STALL_S, gt=0, description="time without a commit, while rows wait, after which /livez fails; unit: seconds"
    )

    @field_validator("metrics_port", "group_instance_id", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def group(self) -> str:
        """Name of the consumer group: deployments with different prefixes share no offsets."""
        return self.sink_group or f"{self.topic_prefix}-sink"


def load_settings(**given: object) -> SinkSettings:
    """Read the settings; what is given (and not None) wins over the environment.

    Raises
    ------
    ConfigError
        Names every setting that cannot be used.
    """
    return SinkSettings.load(**given)
