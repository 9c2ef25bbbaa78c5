"""Settings of the Kafka clients, in one place.

`partitioner` is the one that must not be forgotten: librdkafka's default sends nine keys in ten to another partition
than Kafka's own clients and Faust do, and joins by key then silently miss their other half.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping
from typing import Any

from steersman.kafka_security import KafkaSecurity, kafka_security

#: librdkafka's own chatter; silent unless the application asks for this logger.
kafka_logger = logging.getLogger("steersman.kafka")
kafka_logger.addHandler(logging.NullHandler())
kafka_logger.propagate = False


FETCH_BYTES = 1 << 20
"""Most that one answer of a broker holds, unless a single batch is larger; unit: bytes, compressed."""

MAX_BATCH_BYTES = 32 << 20
"""Largest batch of records that is taken, as it comes and decompressed; the largest record of ours has 16 MiB. Unit: bytes."""

CONSUMER_LIMITS: Mapping[str, int] = {
    "fetch.message.max.bytes": FETCH_BYTES,
    "fetch.max.bytes": FETCH_BYTES,
    "receive.message.max.bytes": MAX_BATCH_BYTES,
    "queued.max.messages.kbytes": 16_384,
    "fetch.queue.backoff.ms": 20,
}
"""What bounds the memory of every confluent-kafka consumer of ours.

librdkafka decompresses all of an answer at once, zstd up to ``receive.message.max.bytes``, gzip and lz4 without a limit, and
asks for no more while ``queued.max.messages.kbytes`` wait. So at any moment it holds what one answer, and at most one batch
that is larger, can become; with its defaults that would be 50 MiB of gzip, or 50 GiB. Each time that so much waits it pauses;
with its default of a second, one that reads fast had three answers a second, and its last partition none.
"""

FOLLOWERS = "steersman-follower-"
"""What the group of a consumer begins with that joins none: librdkafka wants a name, and asks for its coordinator."""


def brokers_from_env(brokers: str | None) -> str:
    """The brokers given, or those of ``STEERSMAN_BROKERS``, or ``127.0.0.1:9092``."""
    return brokers or os.environ.get("STEERSMAN_BROKERS") or "127.0.0.1:9092"


def client_config(
    brokers: str, extra: Mapping[str, Any] | None = None, security: KafkaSecurity | None = None
) -> dict[str, Any]:
    """What every client needs: where the brokers are, and the security of this process (`steersman.kafka_security`).

    Parameters
    ----------
    brokers : str
        ``host:port`` list.
    extra : mapping, optional
        librdkafka settings that win over ours.
    security : KafkaSecurity, optional
        Another identity than this process's.

    Raises
    ------
    ConfigError
        When a setting ``STEERSMAN_KAFKA_*`` cannot be used.
    """
    return {"bootstrap.servers": brokers, **(security or kafka_security(brokers)).librdkafka(), **(extra or {})}


def producer_config(brokers: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Configuration of a producer: idempotent, acknowledged by all replicas, bounded in memory.

    Parameters
    ----------
    brokers : str
        ``host:port`` list.
    extra : mapping, optional
        librdkafka settings that win over ours.

    Raises
    ------
    ConfigError
        When a setting ``STEERSMAN_KAFKA_*`` cannot be used.
    """
    return {
        **client_config(brokers),
        "client.id": "steersman",
        "partitioner": "murmur2_random",
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 5,
        "compression.type": "lz4",
        "queue.buffering.max.messages": 10_000,
        "queue.buffering.max.kbytes": 32_768,
        "message.max.bytes": 1_000_000,
        "delivery.timeout.ms": 120_000,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 2_000,
        "log.connection.close": False,
        **(extra or {}),
    }


def group_config(brokers: str, group: str) -> dict[str, Any]:
    """Configuration of a consumer that looks at the offsets of a group, and joins nothing.

    Parameters
    ----------
    brokers : str
        ``host:port`` list.
    group : str
        The group.

    Raises
    ------
    ConfigError
        When a setting ``STEERSMAN_KAFKA_*`` cannot be used.
    """
    return {
        **client_config(brokers),
        **CONSUMER_LIMITS,
        "group.id": group,
        "enable.auto.commit": False,
        "log_level": 0,
    }


def follower_config(brokers: str, extra: Mapping[str, Any] | None = None, fetch_wait_ms: int = 50) -> dict[str, Any]:
    """Configuration of a consumer that reads whole topics by itself, without a group.

    Parameters
    ----------
    brokers : str
        ``host:port`` list.
    extra : mapping, optional
        librdkafka settings that win over ours.
    fetch_wait_ms : int
        How long a broker may wait for new records before it answers an empty fetch. Brokers answer at once when a
        record comes, so this is not the latency, but it bounds it on a broker that does not.

    Raises
    ------
    ConfigError
        When a setting ``STEERSMAN_KAFKA_*`` cannot be used.
    """
    return {
        **client_config(brokers),
        **CONSUMER_LIMITS,
        "client.id": "steersman",
        "group.id": f"{FOLLOWERS}{uuid.uuid4().hex}",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "allow.auto.create.topics": False,
        "fetch.wait.max.ms": fetch_wait_ms,
        "fetch.error.backoff.ms": 100,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1_000,
        "topic.metadata.refresh.interval.ms": 10_000,
        "socket.keepalive.enable": True,
        "log.connection.close": False,
        **(extra or {}),
    }
