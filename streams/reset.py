"""Making saved state void, for the case that it is damaged: `python -m streams reset`."""

from __future__ import annotations

import asyncio

from confluent_kafka import KafkaException

from steersman.errors import ConfigError, Unreachable
from steersman.kafka_admin import KafkaAdmin
from streams.outputs import Outputs
from streams.settings import StreamSettings
from streams.state import StateStore
from streams.topics import existing_partitions


def reset_state(settings: StreamSettings, stage: str, partition: int) -> None:
    """Make what is saved for a stage and partition void.

    Raises
    ------
    Unreachable
        When the broker does not answer.
    ConfigError
        When there is no such partition, or workers of the group are running: they would go on saving in vain.
    DeliveryFailed
        When the broker did not take it.
    """
    topic = settings.topics.state
    admin = KafkaAdmin(settings.brokers)
    count = existing_partitions(admin, settings.brokers).get(topic)
    if count is None or not 0 <= partition < count:
        raise ConfigError(f"{topic} has no partition {partition}: it has {count or 0}")
    try:
        members = admin.describe_consumer_groups([settings.group])[settings.group].result(10).members
    except KafkaException as error:
        raise Unreachable(f"the group {settings.group}", error.args[0].str()) from error
    if members:
        raise ConfigError(f"{len(members)} workers of group {settings.group} are running: stop them first")
    asyncio.run(_write(settings, stage, partition))


async def _write(settings: StreamSettings, stage: str, partition: int) -> None:
    outputs = Outputs(settings.brokers, delivery_timeout_s=settings.delivery_timeout_s)
    try:
        await StateStore(settings.brokers, settings.topics.state, outputs).reset(stage, partition)
    finally:
        outputs.close()
