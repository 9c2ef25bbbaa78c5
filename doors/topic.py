"""The Collector's topic as a door: ``otlp_spans``, written by its kafka exporter, one request a record.

Offsets are committed only after Kafka has acknowledged every event, or the dead letter, of the records before them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from doors.counting import Counting
from doors.intake import Intake, Taken
from doors.publisher import Publisher, Record
from doors.refused import Refused
from doors.tenancy import TenantMismatch
from serving.health import Health
from serving.lag import LagBook
from steersman.bad_batch import HEADER, end_of_batch, is_bad, why
from steersman.dead_letter import failure_headers, fitted
from steersman.errors import DecodeError, Unreachable
from steersman.headers import headers_of
from steersman.kafka_config import CONSUMER_LIMITS, client_config, follower_config, kafka_logger
from steersman.throttle import Throttle

log = logging.getLogger("steersman.doors")

_BATCH = 200
_POLL_S = 0.2
_PAUSE_S = 1.0
_BEAT_S = 1.0
_FULL_S = 0.05


class TopicDoor:
    """Reads the Collector's topic on a thread of its own.

    Parameters
    ----------
    brokers
        ``host:port`` list.
    topic, group
        The topic, and the consumer group.
    dead_letter_topic
        Where records go that are no OTLP.
    intake, publisher, counting
        As for the door over HTTP.
    health
        Told about the progress.
    tenant
        Tenant of the events.
    tenant_header
        Header of the records that names the tenant instead; empty for none.
    max_bytes
        Largest record; unit: bytes.
    session_timeout_s
        Time after which the group gives up a silent member; unit: seconds.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        group: str,
        *,
        dead_letter_topic: str,
        intake: Intake,
        publisher: Publisher,
        counting: Counting,
        health: Health,
        tenant: str,
        tenant_header: str = "",
        max_bytes: int = 8 << 20,
        session_timeout_s: float = 6.0,
    ) -> None:
        self._brokers = brokers
        self._topic = topic
        self._dead_letter_topic = dead_letter_topic
        self._intake = intake
        self._publisher = publisher
        self._counting = counting
        self._health = health
        self._tenant = tenant
        self._tenant_header = tenant_header
        self._max_bytes = max_bytes
        self._throttle = Throttle()
        self._bad: deque[Message] = deque()
        self._passed: dict[int, int] = {}
        self._stop = threading.Event()
        self._beat_at = 0.0
        self._missing = False
        self._trouble: str | None = None
        self._failure: Exception | None = None
        self._consumer = Consumer(_config(brokers, group, session_timeout_s), logger=kafka_logger)
        self._lag = LagBook(self._consumer, counting.lag)
        self._thread = threading.Thread(target=self._run, name="doors-topic", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Finish the batch at hand, commit, leave the group."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def trouble(self) -> str | None:
        """Return what keeps it from its work, None when nothing does."""
        if self._failure is not None:
            return f"topic {self._topic} is no longer read: {self._failure!r}"
        return f"there is no topic {self._topic} yet" if self._missing else self._trouble

    @property
    def failed(self) -> bool:
        """Whether it has stopped for good."""
        return self._failure is not None

    def _run(self) -> None:
        try:
            # What is revoked has been committed: `step` leaves nothing half done between two polls.
            self._consumer.subscribe([self._topic], on_revoke=self._revoked, on_lost=self._revoked)
            while not self._stop.is_set():
                self._step()
        except Exception as error:  # a fatal error of the client; the process ends, to be started again
            self._failure = error
            log.exception("the door of topic %s stopped", self._topic)
        finally:
            self._consumer.close()

    def _step(self) -> None:
        messages = [m for m in self._consumer.consume(_BATCH, _POLL_S) if self._usable(m)]
        while messages and not self._stop.is_set():
            if self._publish(messages):
                self._commit(messages)
                break
            self._beat(outage=True)
            self._stop.wait(_PAUSE_S)
        while self._bad and not self._stop.is_set():  # what came before them has been published
            self._step_over(self._bad.popleft())
        if time.monotonic() - self._beat_at >= _BEAT_S:
            self._beat(outage=self._trouble is not None)

    def _usable(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.fatal():
            raise KafkaException(error)
        if is_bad(error):
            self._bad.append(message)
            return False
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            self._missing = True
        elif error.code() != KafkaError._PARTITION_EOF:
            self._throttle.warn("topic %s: %s", self._topic, error.str())
        return False

    def _step_over(self, message: Message) -> None:
        """Go on behind a batch that cannot be decompressed, once a dead letter stands for it."""
        if (message.offset() or 0) < self._passed.get(message.partition() or 0, 0):
            return  # said several times before the seek
        try:
            base, end = end_of_batch(follower_config(self._brokers), message)
            said = DecodeError("bad_batch", why(base, end).decode())
            headers = failure_headers(
                self._topic, message.partition() or 0, end - 1, "DESERIALIZE", said, connector="doors"
            )
            letter = Record(self._dead_letter_topic, None, b"", [(HEADER, why(base, end)), *headers])
            self._publisher.publish([letter]).result()
            place = TopicPartition(self._topic, message.partition() or 0, end)
            self._consumer.seek(place)
            self._consumer.commit(offsets=[place], asynchronous=False)
        except (Refused, Unreachable, KafkaException) as error:  # it comes again
            self._throttle.warn("a batch of topic %s was not passed: %s", self._topic, error)
            return
        self._passed[message.partition() or 0] = end
        self._counting.refused("topic", "bad_batch")
        log.warning("a batch of topic %s becomes one dead letter: %s", self._topic, why(base, end).decode())

    def _publish(self, messages: Sequence[Message]) -> bool:
        """Publish what the records hold and wait for Kafka; False when it must be tried again."""
        waiting: deque[tuple[Future[None], Taken | None]] = deque()
        try:
            for message in messages:
                records, taken = self._records(message)
                while (future := self._hand_over(message, records)) is None:
                    # Too many wait already: those of this batch, or what came in over HTTP.
                    if waiting:
                        self._settle(*waiting.popleft())
                    elif self._stop.wait(_FULL_S):
                        return False
                waiting.append((future, taken))
            while waiting:
                self._settle(*waiting.popleft())
        except Refused as error:
            self._trouble = str(error)
            self._throttle.warn("events of topic %s wait: %s", self._topic, error)
            return False
        self._trouble = None
        return True

    def _settle(self, future: Future[None], taken: Taken | None) -> None:
        future.result()
        if taken is not None:
            self._counting.published("topic", taken)

    def _hand_over(self, message: Message, records: Sequence[Record]) -> Future[None] | None:
        """Hand the events of a record to Kafka; None while too many wait."""
        try:
            return self._publisher.publish(records)
        except Refused as error:
            if error.status == 429:
                return None
            return self._publisher.publish([self._dead_letter(message, error)])

    def _records(self, message: Message) -> tuple[Sequence[Record], Taken | None]:
        """What a record of the topic makes: events, or a dead letter."""
        body = message.value() or b""
        started = time.perf_counter()
        try:
            if len(body) > self._max_bytes:
                raise Refused(413, "too_large", f"{len(body)} bytes, {self._max_bytes} are taken: send smaller batches")
            taken = self._intake.spans(body, self._tenant_of(message))
        except Exception as error:  # nothing that is written to the topic may stop it
            reason, status = (error.reason, error.status) if isinstance(error, Refused) else ("internal", 500)
            self._counting.refused("topic", reason)
            self._counting.answered("topic", status, time.perf_counter() - started)
            return [self._dead_letter(message, error)], None
        self._counting.read("topic", len(body))
        self._counting.answered("topic", 200, time.perf_counter() - started)
        if not taken.letters:
            return taken.records, taken
        # One letter, of the record as it came: that is what a replay can decide about anew.
        self._counting.refused("topic", "tenant_mismatch")
        why = TenantMismatch("; ".join(taken.mapped.problems))
        return [*taken.records, self._dead_letter(message, why)], taken

    def _tenant_of(self, message: Message) -> str:
        if self._tenant_header:
            for name, value in headers_of(message):
                if name == self._tenant_header and value:
                    return str(value.decode("utf-8", "replace"))
        return self._tenant

    def _dead_letter(self, message: Message, error: Exception) -> Record:
        where = message.topic() or self._topic, message.partition() or 0, message.offset() or 0
        stage = "VALIDATE" if isinstance(error, TenantMismatch) else "DESERIALIZE"
        why = failure_headers(*where, stage, error, connector="doors")
        own = headers_of(message)
        key, value = message.key(), message.value()
        letter = fitted(
            key.encode() if isinstance(key, str) else key, value.encode() if isinstance(value, str) else value, own, why
        )
        return Record(self._dead_letter_topic, *letter)

    def _commit(self, messages: Sequence[Message]) -> None:
        ends: dict[int, int] = {}
        for message in messages:
            partition, offset = message.partition(), message.offset()
            if partition is not None and offset is not None:
                ends[partition] = max(offset + 1, ends.get(partition, 0))
        try:
            self._consumer.commit(
                offsets=[TopicPartition(self._topic, partition, end) for partition, end in ends.items()],
                asynchronous=False,
            )
        except KafkaException as error:
            # The partition went to another member, who reads these records again: their events have the same ids.
            self._throttle.warn("offsets of topic %s were not committed: %s", self._topic, error.args[0].str())
            return
        self._lag.committed(self._topic, ends)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._lag.revoked((place.topic, place.partition) for place in partitions)
        for place in partitions:
            self._passed.pop(place.partition, None)

    def _beat(self, *, outage: bool) -> None:
        self._beat_at = time.monotonic()
        self._missing = self._missing and not self._consumer.assignment()
        self._health.beat(lag=self._lag.measure(), done=self._lag.commits, outage=outage)


def _config(brokers: str, group: str, session_timeout_s: float) -> dict[str, Any]:
    return {
        **client_config(brokers),
        **CONSUMER_LIMITS,
        "group.id": group,
        "client.id": "steersman-doors",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "allow.auto.create.topics": False,
        "topic.metadata.refresh.interval.ms": 10_000,
        "fetch.wait.max.ms": 250,
        "session.timeout.ms": int(session_timeout_s * 1000),
        "heartbeat.interval.ms": int(session_timeout_s * 250),
        "max.poll.interval.ms": 300_000,
    }
