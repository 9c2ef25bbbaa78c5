"""A Kafka producer that is replaced when it is lost, without losing the records it held."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from steersman import forks
from steersman.kafka_config import kafka_logger
from steersman.throttle import Throttle

_LONGEST_STALL_S, _PURGE_S = 120.0, 5.0
# Errors after which the same bytes may be handed to a new producer: the old one lost its standing with the broker
# (restarted without its memory, or fenced), not the record its validity. Consumers deduplicate by event id.
_RESEND = frozenset(
    {
        KafkaError._FATAL,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.INVALID_PRODUCER_EPOCH,
    }
)
MakeProducer = Callable[[dict[str, Any]], Producer]


class Outlet:
    """Hands records to Kafka; for the use of one thread.

    Parameters
    ----------
    config : dict
        Settings of the producer.
    topic : str
        Where to.
    finished : callable
        Called once for every record: with None when Kafka has it, else with the reason why it was given up.
    note : callable
        Called with the name of anything worth counting.
    throttle : Throttle
        For warnings.
    keep : int
        Most records that wait for a new producer.
    stall_s : float
        A producer that reports nothing for that long, while it has records, is replaced; the wait doubles with every
        replacement without effect.
    make_producer : callable, optional
        Replaces confluent-kafka's.
    """

    def __init__(
        self,
        config: dict[str, Any],
        topic: str,
        *,
        finished: Callable[[str | None], None],
        note: Callable[[str], None],
        throttle: Throttle,
        keep: int,
        stall_s: float,
        make_producer: MakeProducer | None = None,
    ) -> None:
        self._config = {**config, "error_cb": self._on_error}
        self._brokers = config["bootstrap.servers"]
        self._topic = topic
        self._finished = finished
        self._note = note
        self._throttle = throttle
        self._keep = keep
        self._stall_s = self._patience_s = stall_s
        self._make_producer = make_producer or _new_producer
        self._producer: Producer | None = None
        self._again: deque[tuple[bytes | None, bytes | None]] = deque()
        self._renew = False
        self._stopping = False
        self._reports = self._reports_seen = 0
        self._moved = time.monotonic()
        self.producers = 0

    def open(self) -> bool:
        """Have a producer, and give it what the one before it left; False when none can be made."""
        if self._producer is None:
            try:
                self._producer = self._make_producer(self._config)
            except KafkaException as error:
                self._note("bad_kafka_settings")
                self._throttle.warn("no Kafka producer for %s: %s. Check its settings.", self._brokers, error)
                return False
            self._renew = False
            self.producers += 1
            for _ in range(len(self._again)):
                self.produce(*self._again.popleft())
        return True

    def produce(self, key: bytes | None, value: bytes | None, waiting: Callable[[], None] = lambda: None) -> None:
        """Hand over a record, waiting while librdkafka's queue is full (then `waiting` is called now and again)."""
        producer = self._producer
        while producer is not None and not self._stopping and not self._renew:
            try:
                producer.produce(self._topic, value=value, key=key, on_delivery=self._delivered)
                return
            except BufferError:
                producer.poll(0.05)
                waiting()
                self._check_stall(producer)
            except KafkaException as error:
                self._give_up_or_keep(error.args[0].code(), key, value)
                return
        self._again.append((key, value))

    def serve(self) -> bool:
        """Take delivery reports and look after the producer; False when it had to go and `open` must come next."""
        producer = self._producer
        if producer is not None:
            producer.poll(0)
            self._check_stall(producer)
            if not self._renew:
                return True
            self._discard(producer)
        return False

    def stop(self) -> None:
        """Do not wait for anything any more; may be called from another thread."""
        self._stopping = True

    def close(self) -> None:
        """Let go of the producer, with whatever it still holds."""
        self._stopping = True
        if self._producer is not None:
            self._discard(self._producer)

    def leak(self) -> None:
        """In a forked child: leave the parent's producer alone for good."""
        if self._producer is not None:
            forks.leak(self._producer)

    def _check_stall(self, producer: Producer) -> None:
        # An idempotent producer whose broker lost its memory is refused for ever, and says nothing.
        now = time.monotonic()
        if self._reports != self._reports_seen:
            self._reports_seen, self._moved, self._patience_s = self._reports, now, self._stall_s
        elif not len(producer):
            self._moved = now
        elif now - self._moved > self._patience_s:
            self._moved, self._patience_s = now, min(2 * self._patience_s, _LONGEST_STALL_S)
            self._note("stalled")
            self._renew = True

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._reports += 1
            self._finished(None)
        else:
            self._give_up_or_keep(error.code(), message.key(), message.value())

    def _give_up_or_keep(self, code: int, key: bytes | None, value: bytes | None) -> None:
        if self._stopping:
            return  # whoever stops knows how many were left
        if code in _RESEND and len(self._again) < self._keep:
            self._again.append((key, value))
            self._note("resent")
            self._renew = True
            return
        reason = "too_large" if code == KafkaError.MSG_SIZE_TOO_LARGE else f"kafka:{KafkaError(code).name()}"
        self._finished(reason)
        self._throttle.warn("a trace event was not delivered to %s: %s", self._brokers, reason)

    def _discard(self, producer: Producer) -> None:
        """Let go of a producer; what it held comes back through its delivery reports."""
        self._producer = None
        producer.purge()
        deadline = time.monotonic() + _PURGE_S
        while len(producer) and not self._stopping and time.monotonic() < deadline:
            producer.poll(0.05)
        if not self._stopping:
            for _ in range(len(producer)):  # never reported: given up, so that no one waits for them
                self._finished("lost")

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._renew = True
        self._note(f"kafka:{error.name()}")
        self._throttle.warn("Kafka at %s: %s", self._brokers, error.str())


def _new_producer(config: dict[str, Any]) -> Producer:
    return Producer(config, logger=kafka_logger)
