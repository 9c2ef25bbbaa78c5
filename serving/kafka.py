"""The Kafka security settings as `steersman config show` and the doctor look at them."""

from __future__ import annotations

from pydantic_settings import SettingsConfigDict

from serving.settings import ServiceSettings
from steersman.kafka_security import KafkaOptions


class KafkaSettings(ServiceSettings, KafkaOptions):
    """`steersman.kafka_security.KafkaOptions` with the origins of a service's settings: one set for all clients of a process."""

    model_config = SettingsConfigDict(env_prefix="STEERSMAN_", frozen=True, extra="ignore")
