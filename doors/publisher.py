"""Hands events to Kafka and tells when Kafka has all of them: only then may whoever sent them be told so.

The producer is not idempotent: ids are made of what they stand for, so a record that gets through twice counts once, and this
producer has no state with the broker that it could lose. Within a partition, order may change on a retry, which the join bears.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from doors.refused import Refused
from steersman.kafka_config import kafka_logger, producer_config
from steersman.throttle import Throttle

_POLL_S = 0.1
_RETRY_AFTER_S = 2
MakeProducer = Callable[[dict[str, Any]], Producer]


@dataclass(frozen=True, slots=True)
class Record:
    """A record to publish.

    Attributes
    ----------
    topic
        Where to.
    key, value
        Bytes.
    headers
        (name, bytes) pairs.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Publisher:
    """Publishes batches of records; threads may share it.

    Parameters
    ----------
    brokers
        ``host:port`` list.
    max_waiting
        Most records that wait for Kafka; a batch that would exceed it is refused at once.
    timeout_s
        Time after which a record that Kafka did not take fails; unit: seconds.
    kafka
        librdkafka settings that win over ours.
    make_producer
        Replaces confluent-kafka's producer.
    """

    def __init__(
        self,
        brokers: str,
        *,
        max_waiting: int,
        timeout_s: float,
        kafka: Mapping[str, Any] | None = None,
        make_producer: MakeProducer | None = None,
    ) -> None:
        self._brokers = brokers
        self._max_waiting = max_waiting
        self._throttle = Throttle()
        config = producer_config(
            brokers,
            {
                "client.id": "steersman-doors",
                "enable.idempotence": False,
                "linger.ms": 5,
                "delivery.timeout.ms": int(timeout_s * 1000),
                "queue.buffering.max.messages": max_waiting + 1000,
                "queue.buffering.max.kbytes": 131_072,
                "error_cb": self._on_error,
                **(kafka or {}),
            },
        )
        self._producer = (make_producer or _new_producer)(config)
        self._lock = threading.Lock()
        self._waiting = 0
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="doors-poll", daemon=True)
        self._poller.start()

    @property
    def waiting(self) -> int:
        """Records handed over and not acknowledged yet."""
        return self._waiting

    def publish(self, records: Sequence[Record]) -> Future[None]:
        """Hand records over, all or none.

        Returns
        -------
        Future
            Done when Kafka has all of them; `Refused` (503, ``kafka``) when it did not take one, others of which it may have.

        Raises
        ------
        Refused
            429, ``busy``: too many wait already; 413, ``too_many``: these are more than may ever wait.
        """
        count = len(records)
        if count > self._max_waiting:
            raise Refused(
                413, "too_many", f"{count} events at once, {self._max_waiting} are taken: send smaller batches"
            )
        with self._lock:
            if self._waiting + count > self._max_waiting:
                raise Refused(
                    429, "busy", f"{self._waiting} events wait for Kafka, {self._max_waiting} may", _RETRY_AFTER_S
                )
            self._waiting += count
        batch = _Batch(count)
        for index, record in enumerate(records):
            try:
                self._producer.produce(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers) or None,
                    on_delivery=partial(self._delivered, batch),
                )
            except (BufferError, KafkaException) as error:
                self._settle(batch, count - index, str(error) or "the producer's queue is full")
                break
        return batch.future

    def trouble(self) -> str | None:
        """Return why nothing can be published, None when all is well; asks the broker, for two seconds at most."""
        try:
            self._producer.list_topics(timeout=2)
        except KafkaException as error:
            return f"Kafka at {self._brokers} does not answer: {error.args[0].str()}"
        return None

    def close(self, timeout_s: float) -> int:
        """Deliver what waits, stop, and return how many records were not delivered."""
        remaining = self._producer.flush(timeout_s)
        self._closed.set()
        self._poller.join(2 * _POLL_S)
        return remaining

    def _delivered(self, batch: _Batch, error: KafkaError | None, message: Message) -> None:
        self._settle(batch, 1, None if error is None else error.str())

    def _settle(self, batch: _Batch, count: int, error: str | None) -> None:
        with self._lock:
            self._waiting -= count
            batch.left -= count
            batch.error = batch.error or error
            done = batch.left == 0
        if done:
            if batch.error is None:
                batch.future.set_result(None)
            else:
                batch.future.set_exception(
                    Refused(503, "kafka", f"Kafka did not take the events: {batch.error}", _RETRY_AFTER_S)
                )

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(_POLL_S)

    def _on_error(self, error: KafkaError) -> None:
        self._throttle.warn("Kafka at %s: %s", self._brokers, error.str())


class _Batch:
    def __init__(self, count: int) -> None:
        self.left = count
        self.error: str | None = None
        self.future: Future[None] = Future()
        if not count:
            self.future.set_result(None)


def _new_producer(config: dict[str, Any]) -> Producer:
    return Producer(config, logger=kafka_logger)
