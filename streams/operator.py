"""Who wants something of a policy: writes an act to the control topic, and waits for what becomes of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from steersman.codec import Codec, SchemaIds
from steersman.errors import DecodeError, SteersmanError, Unreachable
from steersman.headers import headers_of
from steersman.kafka_config import follower_config, kafka_logger, producer_config
from steersman.topics import Topics
from streams.topics import MAX_STATE_BYTES

_POLL_S: Final = 0.1
_DELIVERY_S: Final = 20.0


@dataclass(frozen=True)
class Aim:
    """A published version to go back to.

    Attributes
    ----------
    epoch, version
        Which one.
    record
        The snapshot as it was published, in single-object encoding.
    """

    epoch: int
    version: int
    record: bytes


def act_record(
    tenant: str,
    policy: str,
    act: str,
    *,
    who: str,
    why: str,
    ts: int,
    expected: str = "",
    in_epoch: int = -1,
    aim: Aim | None = None,
    act_id: str = "",
) -> dict[str, Any]:
    """Return the record of ``policy_act.avsc`` that asks for an act; see there for the fields."""
    return {
        "act_id": act_id or uuid.uuid4().hex,
        "ts": ts,
        "tenant": tenant,
        "policy": policy,
        "act": act,
        "who": who,
        "why": why,
        "expected": expected,
        "in_epoch": in_epoch,
        "epoch": -1 if aim is None else aim.epoch,
        "version": -1 if aim is None else aim.version,
        "snapshot": b"" if aim is None else aim.record,
        "outcome": "ASKED",
    }


class Operator:
    """Asks for acts. One thread at a time.

    Parameters
    ----------
    brokers
        Comma-separated `host:port` list.
    topics
        Topic names.
    registry
        Schema registry, None for none.
    """

    def __init__(self, brokers: str, topics: Topics, registry: SchemaIds | None = None) -> None:
        self._brokers = brokers
        self._topic = topics.control
        self._codec = Codec("policy_act", registry=registry, max_bytes=MAX_STATE_BYTES)

    def ask(self, record: Mapping[str, Any]) -> int:
        """Write an act to the topic; returns its offset.

        Raises
        ------
        Unreachable
            When the broker does not take it in time; it is not on the topic then, nor will it be.
        """
        config = producer_config(
            self._brokers,
            {
                "message.max.bytes": MAX_STATE_BYTES,
                "linger.ms": 0,
                "delivery.timeout.ms": int(_DELIVERY_S * 1000),
                "log_level": 2,
            },
        )
        key = f"{record['tenant']}/{record['policy']}".encode()
        delivered: list[tuple[KafkaError | None, Message]] = []
        producer = Producer(config, logger=kafka_logger)
        producer.produce(
            self._topic,
            key=key,
            value=self._codec.encode(record),
            partition=0,
            on_delivery=lambda error, message: delivered.append((error, message)),
        )
        producer.flush(_DELIVERY_S + 5)
        error = delivered[0][0] if delivered else "no answer"
        if error is not None:
            raise Unreachable(
                f"topic {self._topic} at {self._brokers}",
                f"The act was not written ({error}). Does the topic exist ('steersman topics --create'), and may this user write to it?",
            )
        return delivered[0][1].offset() or 0

    def outcome(
        self, act_id: str, after: int, timeout_s: float, waiting: Callable[[], None] = lambda: None
    ) -> dict[str, Any] | None:
        """Wait for what becomes of an act; None when nobody says so in time.

        Parameters
        ----------
        act_id, after
            Which act, and its offset.
        timeout_s
            Longest wait; unit: seconds.
        waiting
            Called about once a second meanwhile.
        """
        consumer = Consumer(follower_config(self._brokers), logger=kafka_logger)
        try:
            consumer.assign([TopicPartition(self._topic, 0, after)])
            began = told = time.monotonic()
            while (now := time.monotonic()) - began < timeout_s:
                if now - told >= 1.0:
                    told = now
                    waiting()
                message = consumer.poll(_POLL_S)
                if message is None or message.error() is not None:
                    continue
                try:
                    record = self._codec.decode(message.value(), headers_of(message))
                except DecodeError:
                    continue
                if record["act_id"] == act_id and record["outcome"] in ("APPLIED", "REFUSED"):
                    return record
            return None
        except KafkaException as error:
            raise SteersmanError(f"topic {self._topic} at {self._brokers} cannot be read: {error.args[0]}") from error
        finally:
            consumer.close()
