"""Settings of the stream workers, from the environment (``STEERSMAN_*``) and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from serving.health import STALL_S
from serving.settings import ServiceSettings
from steersman.topics import Topics

StageName = Literal["trace", "learn"]
STAGES: tuple[StageName, ...] = ("trace", "learn")


class StreamSettings(ServiceSettings):
    """Settings of one worker. Each field is read from the variable ``STEERSMAN_`` + its name in capitals.

    Attributes
    ----------
    brokers
        Comma-separated `host:port` list.
    topic_prefix
        First part of all topic names, and of the consumer group.
    policies
        The policies' TOML file.
    prices
        Price table (`steersman.prices`; ``example`` for the one shipped) for calls that report no cost, None for none.
    registry_url
        Schema registry, None for none.
    policy_signing_key
        File with the Ed25519 private key that signs the policies; they go out unsigned without one. Learners follow only
        policies signed by it, or by the keys in ``STEERSMAN_POLICY_KEYS`` (`steersman.signing`).
    tenant
        Tenant of events that the worker itself writes (ticks).
    stages
        Stages this worker runs. All workers of one prefix are one consumer group, whatever stages they run.
    partitions
        Partition count of trace, reward and state topics when they are created here.
    metrics_port
        Port of ``/metrics``, ``/livez`` and ``/readyz``; None for no endpoint, 0 for any free one.
    metrics_host
        Address of that port.
    stall_s
        Time without a checkpoint, while records wait, after which ``/livez`` fails; unit: seconds.
    checkpoint_interval_s, checkpoint_events
        The trace stage's state is saved after this time or this many events, whatever comes first.
    learner_checkpoint_interval_s
        The same for learners, whose state is large and whose input is small.
    trace_horizon_s
        How long a trace is remembered after its last event or reward, so that late and repeated events are known for what
        they are. The same for all workers of a group; a worker's memory grows with it (docs/capacity.md); unit: seconds.
    rollup_interval_s
        How often a window that changes is emitted (each is a record, a row and a piece of state). The same for all workers of
        a group; unit: seconds.
    tick_interval_s
        How often it is looked whether an idle partition must be told the time; unit: seconds.
    publish_interval_s, publish_interval_max_s
        Shortest time between two snapshots of one policy, and what it grows to as the policy matures; unit: seconds.
    max_poll_records
        Longest batch; unit: records.
    fetch_max_wait_ms
        Longest time the broker holds an empty fetch; unit: milliseconds.
    fetch_linger_ms
        Longest time the broker collects records for a fetch where they come fast (`streams.fetch_pace`), 0 for none; unit:
        milliseconds.
    group_instance_id
        Name of this worker in its group, for static membership (KIP-345): one that is back under its name within
        `session_timeout_s` has its partitions again, and no other worker hears of it. Every worker needs one of its own (the
        name of its pod, say); None for a new member at each start.
    session_timeout_s
        Time after which the group gives up a silent worker; unit: seconds. Kafka allows 6 to 1800 by default; the
        embedded broker holds a join back for half of it.
    delivery_timeout_s
        Time within which outputs must be delivered, else the worker stops; unit: seconds. Longer than a broker takes to
        come back.
    shutdown_timeout_s
        Longest orderly shutdown; unit: seconds.
    dead_letter_max_ratio, dead_letter_window, dead_letter_max_consecutive
        The brake of `streams.dead_letters.DlqLimit`.
    """

    model_config = SettingsConfigDict(env_prefix="STEERSMAN_", frozen=True, extra="ignore")

    brokers: str = "127.0.0.1:9092"
    topic_prefix: str = "steersman"
    policies: Path = Path("policies.toml")
    prices: Path | None = None
    registry_url: str | None = None
    policy_signing_key: Path | None = None
    tenant: str = "default"
    stages: tuple[StageName, ...] = STAGES
    partitions: int = Field(default=12, ge=1, le=1000)
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    metrics_host: str = "127.0.0.1"
    stall_s: float = Field(default=STALL_S, gt=0)
    checkpoint_interval_s: float = Field(default=2.0, gt=0)
    checkpoint_events: int = Field(default=20_000, ge=1)
    learner_checkpoint_interval_s: float = Field(default=3.0, gt=0)
    trace_horizon_s: float = Field(default=3600.0, ge=60, le=7 * 86_400)
    rollup_interval_s: float = Field(default=2.0, ge=0.1, le=60)
    tick_interval_s: float = Field(default=0.1, gt=0)
    publish_interval_s: float = Field(default=0.1, ge=0)
    publish_interval_max_s: float = Field(default=0.5, ge=0)
    max_poll_records: int = Field(default=4000, ge=1)
    fetch_max_wait_ms: int = Field(default=100, ge=1, le=1500)
    fetch_linger_ms: int = Field(default=200, ge=0, le=1000)
    group_instance_id: str | None = Field(default=None, max_length=200)
    session_timeout_s: float = Field(default=10.0, ge=1.0, le=300.0)
    delivery_timeout_s: float = Field(default=120.0, gt=0)
    shutdown_timeout_s: float = Field(default=8.0, gt=0)
    dead_letter_max_ratio: float = Field(default=0.2, gt=0, le=1)
    dead_letter_window: int = Field(default=1000, ge=10)
    dead_letter_max_consecutive: int = Field(default=200, ge=1)

    @field_validator("stages", mode="before")
    @classmethod
    def _split_stages(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("stages")
    @classmethod
    def _some_stage(cls, value: tuple[StageName, ...]) -> tuple[StageName, ...]:
        if not value:
            raise ValueError(f"name at least one of {', '.join(STAGES)}")
        return tuple(stage for stage in STAGES if stage in value)

    @field_validator("registry_url", "prices", "metrics_port", "policy_signing_key", "group_instance_id", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def topics(self) -> Topics:
        """Topic names under the prefix."""
        return Topics(self.topic_prefix)

    @property
    def group(self) -> str:
        """Name of the consumer group."""
        return f"{self.topic_prefix}-streams"
