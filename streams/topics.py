"""The topics of the platform: partitions, clean-up, retention; created idempotently."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic

from steersman.errors import ConfigError, Unreachable
from steersman.kafka_admin import KafkaAdmin
from steersman.topics import Topics

_DAY_MS = 86_400_000
_MINUTE_MS = 60_000
MAX_STATE_BYTES = 16 << 20
"""Largest record of the state and policy topics; unit: bytes. A learner's covariance is a few MB."""


@dataclass(frozen=True)
class TopicSpec:
    """One topic.

    Attributes
    ----------
    name
        Full name.
    partitions
        Partition count.
    config
        Kafka topic settings.
    """

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


def topic_specs(topics: Topics, partitions: int) -> list[TopicSpec]:
    """Return every topic of the platform.

    Parameters
    ----------
    topics
        Names.
    partitions
        Of the trace topic, and of those that must have as many: the state of trace or reward partition p is in
        partition p of the state topic.
    """
    compacted = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
    return [
        TopicSpec(topics.trace, partitions, _kept(days=7)),
        TopicSpec(topics.reward, partitions, _kept(days=30)),
        TopicSpec(
            topics.rollup,
            partitions,
            {
                "cleanup.policy": "compact,delete",
                "retention.ms": str(30 * _DAY_MS),
                "min.compaction.lag.ms": str(5 * _MINUTE_MS),
            },
        ),
        TopicSpec(topics.alert, 1, _kept(days=30)),
        # Compacted only: time-based deletion would remove a good policy that simply did not change.
        TopicSpec(
            topics.policy,
            1,
            compacted
            | {
                "min.compaction.lag.ms": str(_MINUTE_MS),
                "max.compaction.lag.ms": str(_DAY_MS),
                "delete.retention.ms": str(7 * _DAY_MS),
                "segment.ms": str(60 * _MINUTE_MS),
                "max.message.bytes": str(MAX_STATE_BYTES),
            },
        ),
        # Kept for good: they are few, and a policy whose learner's state was lost stands again as operators wanted it.
        TopicSpec(
            topics.control,
            1,
            {"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": str(MAX_STATE_BYTES)},
        ),
        # One partition: then everybody who adds the shards up sees the same order, and a version is one sum.
        TopicSpec(
            topics.shard,
            1,
            compacted
            | {
                "min.compaction.lag.ms": str(_MINUTE_MS),
                "max.compaction.lag.ms": str(_DAY_MS),
                # Every shard publishes all its sums several times a second.
                "segment.ms": str(10 * _MINUTE_MS),
                "segment.bytes": str(4 * MAX_STATE_BYTES),
                "max.message.bytes": str(MAX_STATE_BYTES),
            },
        ),
        TopicSpec(topics.dead_letter, min(3, partitions), _kept(days=14)),
        TopicSpec(topics.audit, 1, _kept(days=30)),
        TopicSpec(
            topics.state,
            partitions,
            compacted
            | {
                # Long enough that a restart sees who wrote what (see streams.state), short enough to start fast.
                "min.compaction.lag.ms": str(10 * _MINUTE_MS),
                "max.compaction.lag.ms": str(_DAY_MS),
                "delete.retention.ms": str(_DAY_MS),
                "segment.ms": str(10 * _MINUTE_MS),
                "max.message.bytes": str(MAX_STATE_BYTES),
            },
        ),
    ]


def create_topics(brokers: str, topics: Topics, partitions: int = 12, *, timeout_s: float = 15.0) -> dict[str, bool]:
    """Create the topics that do not exist yet, with the cluster's default replication.

    Parameters
    ----------
    brokers
        Comma-separated `host:port` list.
    topics
        Names.
    partitions
        Of the trace topic and those that follow it.
    timeout_s
        Longest wait; unit: seconds.

    Returns
    -------
    dict
        Topic name -> whether it was created by this call.

    Raises
    ------
    Unreachable
        When no broker answers.
    ConfigError
        When the broker refuses a topic, or an existing one does not fit: trace, reward and state topic must have
        equal partition counts, policy, control and shard topic one.
    """
    admin = KafkaAdmin(brokers)
    existing = existing_partitions(admin, brokers, timeout_s=min(timeout_s, 6.0))
    specs = topic_specs(topics, existing.get(topics.trace, partitions))
    missing = [spec for spec in specs if spec.name not in existing]
    created = {spec.name: False for spec in specs}
    if missing:
        requested = [
            NewTopic(spec.name, num_partitions=spec.partitions, replication_factor=-1, config=dict(spec.config))
            for spec in missing
        ]
        for name, future in admin.create_topics(requested, request_timeout=timeout_s).items():
            try:
                future.result(timeout_s)
                created[name] = True
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise ConfigError(
                        f"the broker at {brokers} refused to create topic {name}: {error.args[0].str()}; "
                        + (
                            "it may be there and this principal may not see it. 'steersman doctor --role ROLE' says which rights "
                            "it lacks, 'steersman acl apply' gives them, 'steersman topics --create' is for an operator"
                            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
                            else "create it yourself"
                        )
                    ) from error
        _wait_visible(admin, brokers, {spec.name for spec in specs}, timeout_s)
    check_partitions(existing_partitions(admin, brokers), topics)
    return created


def existing_partitions(admin: KafkaAdmin, brokers: str, *, timeout_s: float = 6.0) -> dict[str, int]:
    """Return topic name -> partition count of all topics of the cluster.

    Raises
    ------
    Unreachable
        When no broker answers.
    """
    try:
        metadata = admin.list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise admin.unreachable() from error
    return {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}


def check_partitions(existing: Mapping[str, int], topics: Topics, *, sharded: bool = False) -> None:
    """Check the partition counts on which correctness rests.

    Parameters
    ----------
    existing
        Topic name -> partition count.
    topics
        Names.
    sharded
        Whether a policy is learned in shards: only then the shard topic must exist.

    Raises
    ------
    ConfigError
        Naming the topic, what it has and what it must have.
    """
    needed_topics = [topics.trace, topics.reward, topics.state, topics.policy, topics.control]
    needed_topics += [topics.dead_letter, topics.audit]
    if sharded:
        needed_topics.append(topics.shard)
    for needed in needed_topics:
        if needed not in existing:
            raise ConfigError(f"topic {needed} does not exist; run `python -m streams topics` first")
    wanted = existing[topics.trace]
    for name in (topics.reward, topics.state):
        if existing[name] != wanted:
            raise ConfigError(
                f"topic {name} has {existing[name]} partitions, {topics.trace} has {wanted}: they must be equal, since "
                "the state of partition p is kept in partition p; recreate the former or use another topic prefix"
            )
    for name in (topics.policy, topics.control, topics.shard):
        if existing.get(name, 1) != 1:
            raise ConfigError(f"topic {name} has {existing[name]} partitions; it must have 1")


def _kept(*, days: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS)}


def _wait_visible(admin: KafkaAdmin, brokers: str, names: set[str], timeout_s: float) -> None:
    """Wait until the metadata of new topics has spread: until then a producer would fail on them."""
    deadline = time.monotonic() + timeout_s
    while missing := names - existing_partitions(admin, brokers).keys():
        if time.monotonic() > deadline:
            raise Unreachable(f"topics {', '.join(sorted(missing))} at {brokers}", "created, but never listed")
        time.sleep(0.05)
