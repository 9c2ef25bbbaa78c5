"""Producing what cannot be stored to the dead-letter topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from sinks.batch import Rejected
from steersman.dead_letter import MAX_LETTER, failure_headers, fitted
from steersman.errors import Unreachable
from steersman.kafka_config import kafka_logger, producer_config


class DeadLetters:
    """Producer of the dead-letter topic.

    Parameters
    ----------
    brokers
        Kafka bootstrap servers.
    topic
        The dead-letter topic.
    timeout_s
        Longest wait for the deliveries; unit: seconds.
    """

    def __init__(self, brokers: str, topic: str, timeout_s: float = 10.0):
        self._topic = topic
        self._timeout_s = timeout_s
        config = producer_config(brokers, {"delivery.timeout.ms": int(timeout_s * 1000)})
        self._make: Callable[[], Any] = lambda: Producer(config, logger=kafka_logger)
        self._producer: Any = None

    def send(self, rejected: list[Rejected]) -> None:
        """Produce dead letters and wait until the broker has them all.

        Raises
        ------
        Unreachable
            It has not got all of them; sending them again is safe, the table keeps one row for each.
        """
        if not rejected:
            return
        failed: list[str] = []
        too_large: list[Rejected] = []
        for one in rejected:
            self._produce(one, MAX_LETTER, too_large, failed)
        self._flush(failed)
        for one in too_large:  # this broker takes less than most
            self._produce(one, 0, [], failed)
        self._flush(failed)

    def _flush(self, failed: list[str]) -> None:
        left = self._producer.flush(self._timeout_s)
        if left or failed:
            reason = failed[0] if failed else f"{left} not acknowledged in {self._timeout_s:g} s"
            self._producer.purge()
            raise Unreachable(
                f"the dead-letter topic {self._topic} ({reason})", "is the broker up and the topic there?"
            )

    def _produce(
        self,
        one: Rejected,
        limit: int,
        too_large: list[Rejected],
        failed: list[str],
    ) -> None:
        if self._producer is None:
            self._producer = self._make()
        message = one.message

        def delivered(error: KafkaError | None, _: object) -> None:
            if error is None:
                return
            if error.code() == KafkaError.MSG_SIZE_TOO_LARGE and limit:
                too_large.append(one)
            else:
                failed.append(str(error))

        cause = failure_headers(message.topic, message.partition, message.offset, "SINK", one.error, connector="sink")
        key, value, headers = fitted(message.key, message.value, message.headers, cause, limit)
        try:
            self._producer.produce(
                self._topic,
                key=key,
                value=value,
                headers=headers,
                timestamp=max(message.timestamp_ms, 0),
                on_delivery=delivered,
            )
        except KafkaException as e:
            delivered(e.args[0], None)
        except BufferError:
            self._flush(failed)
            self._produce(one, limit, too_large, failed)
