"""Retiring a tenant's policies on the policy topic: a record of stage RETIRED first, tombstones when that one is an hour old."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from steersman.codec import Codec, SchemaIds
from steersman.errors import DecodeError, SteersmanError, Unreachable
from steersman.kafka_config import kafka_logger, producer_config
from steersman.signing import PolicySigner
from steersman.topics import Topics
from streams.partition_log import PartitionLog
from streams.topics import MAX_STATE_BYTES

TOMBSTONE_AFTER_S = 3600.0
"""How long a RETIRED record stands before it is deleted: every agent that follows the topic has read it by then."""
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Retired:
    """A policy and what was done with it: `retired`, `tombstone` (its records go with the next compaction), or why nothing."""

    policy: str
    done: str


def retire(
    brokers: str,
    topics: Topics,
    tenant: str,
    key: Path | None,
    *,
    registry: SchemaIds | None = None,
    dry_run: bool = False,
    now_s: Callable[[], float] = time.time,
) -> list[Retired]:
    """Retire every policy of a tenant.

    A worker whose policies file still has a policy publishes it again: take it out of there first.

    Parameters
    ----------
    brokers, topics
        Where.
    tenant
        Whose.
    key
        File of the private key that signs; None where policies are not signed.
    registry
        Schema registry, None for none.
    dry_run
        Only say.
    now_s
        The time; unit: seconds since 1970-01-01 UTC.

    Raises
    ------
    Unreachable
        When the broker does not answer, or takes nothing.
    SteersmanError
        When a record was refused.
    """
    codec = Codec("policy_snapshot", registry=registry, max_bytes=MAX_STATE_BYTES)
    newest = _newest(brokers, topics.policy, tenant, codec)
    signer = PolicySigner(topics.policy, key) if key is not None else None
    done: list[Retired] = []
    records: list[tuple[bytes, bytes | None]] = []
    now_us = int(now_s() * 1e6)
    for name, record in sorted(newest.items()):
        if record["stage"] == "RETIRED":
            if now_us - record["created_at"] < TOMBSTONE_AFTER_S * 1e6:
                done.append(Retired(record["policy"], "is retired; run again in an hour for its tombstone"))
                continue
            records.append((name, None))
            done.append(Retired(record["policy"], "tombstone"))
            continue
        if record["signature"] and signer is None:
            done.append(Retired(record["policy"], "left: it is signed; name the key in STEERSMAN_POLICY_SIGNING_KEY"))
            continue
        made = {**record, "stage": "RETIRED", "signature": b"", "created_at": max(now_us, record["created_at"] + 1)}
        records.append((name, codec.encode(made) if signer is None else signer.encode(codec, name, made)))
        done.append(Retired(record["policy"], "retired"))
    if records and not dry_run:
        _produce(brokers, topics.policy, records)
    return done


def _newest(brokers: str, topic: str, tenant: str, codec: Codec) -> dict[bytes, dict[str, Any]]:
    """Record key -> the highest record of each policy of the tenant that has no tombstone behind it."""
    prefix = f"{tenant}/".encode()
    found: dict[bytes, dict[str, Any]] = {}
    for item in PartitionLog(brokers, topic, 0):
        if item.key is None or not item.key.startswith(prefix):
            continue
        if not item.value:
            found.pop(item.key, None)
            continue
        try:
            record = codec.decode(item.value, item.headers)
        except DecodeError:
            continue
        held = found.get(item.key)
        if record["tenant"] == tenant and (held is None or _rank(record) >= _rank(held)):
            found[item.key] = record
    return found


def _rank(record: dict[str, Any]) -> tuple[int, int, int]:
    return record["epoch"], record["version"], record["created_at"]


def _produce(brokers: str, topic: str, records: list[tuple[bytes, bytes | None]]) -> None:
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            refused.append(error)

    config = producer_config(brokers) | {"message.max.bytes": MAX_STATE_BYTES}
    producer = Producer(config, logger=kafka_logger)
    try:
        for key, value in records:
            producer.produce(topic, value=value, key=key, on_delivery=delivered)
        left = producer.flush(_TIMEOUT_S)
    except KafkaException as error:
        raise SteersmanError(f"{topic}: {error.args[0].str()}") from error
    if left:
        raise Unreachable(f"topic {topic} at {brokers}", f"{left} records were not taken in {_TIMEOUT_S:.0f} s")
    if refused:
        raise SteersmanError(f"{topic} refused {len(refused)} records: {refused[0].str()}")
