"""The workers' producer: a whole batch of outputs delivered, or an error.

Faust's own producer only warns about a lost send; here a failed delivery raises, so that the input is not acknowledged
and will be processed again.

Whoever reads outputs by provenance takes one that is missing for one that never was, once a later one has come. So
there must be no gap: the producer never gives a record up while it sends those behind it. It is this module that watches
the time, and after a failure nothing more is sent at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from steersman.errors import SteersmanError
from steersman.kafka_config import client_config
from streams.topics import MAX_STATE_BYTES


class DeliveryFailed(SteersmanError):
    """Records that the broker did not take; the work that made them will be repeated."""


Report = Callable[[KafkaError | None, Message | None], None]
"""Told what became of a record."""


@dataclass(slots=True)
class OutputRecord:
    """A record to produce.

    Attributes
    ----------
    topic
        Where to.
    key, value
        Bytes; a None value is a tombstone.
    partition
        Partition number, None to choose by key (murmur2, as Kafka's own clients).
    headers
        (name, bytes) pairs.
    timestamp_ms
        Kafka timestamp, None for now; unit: milliseconds since 1970-01-01 UTC.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp_ms: int | None = None


class _Pending:
    """Deliveries still awaited for one call; touched by the poll thread only, but for the counting."""

    def __init__(self, count: int, reports: int, done: Callable[[_Pending], None]) -> None:
        self.offsets: list[int] = [-1] * count
        self.error: KafkaError | None = None
        self._left = reports
        self._done = done
        self._lock = threading.Lock()

    def report(self, index: int, error: KafkaError | None, message: Message | None) -> None:
        if error is not None:
            self.error = self.error or error
        elif message is not None:
            offset = message.offset()
            self.offsets[index] = -1 if offset is None else offset
        with self._lock:
            self._left -= 1
            finished = self._left == 0
        if finished:
            self._done(self)


class Outputs:
    """Idempotent producer with awaitable batches; one per worker.

    Parameters
    ----------
    brokers
        Comma-separated `host:port` list.
    delivery_timeout_s
        Time after which a record that could not be delivered fails; unit: seconds.
    linger_ms
        Time the producer waits for company before it sends; unit: milliseconds.
    """

    def __init__(self, brokers: str, *, delivery_timeout_s: float = 30.0, linger_ms: int = 3) -> None:
        self._producer = Producer(
            {
                **client_config(brokers),
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "delivery.timeout.ms": 0,
                "enable.gapless.guarantee": True,
                "message.max.bytes": MAX_STATE_BYTES,
                "queue.buffering.max.messages": 200_000,
                "queue.buffering.max.kbytes": 262_144,
                "log_level": 2,
            }
        )
        self._delivery_timeout_s = delivery_timeout_s
        self._failure: str | None = None
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="outputs-poll", daemon=True)
        self._poller.start()

    async def send(self, records: Sequence[OutputRecord]) -> asyncio.Future[list[int]]:
        """Hand records to the producer, in order, and return the future of their delivery.

        Returns
        -------
        Future of list of int
            The offset of each record, once the broker has all of them; or `DeliveryFailed`, when any of them was
            not delivered (others may have been).

        Raises
        ------
        DeliveryFailed
            When the producer does not even take them, or has failed before.
        """
        return await self._send(records, range(len(records)))

    async def _send(self, records: Sequence[OutputRecord], reporting: range) -> asyncio.Future[list[int]]:
        """Do what `send` does, with reports of the records at these indexes alone."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[int]] = loop.create_future()
        if not records:
            future.set_result([])
            return future
        topics = ", ".join(sorted({record.topic for record in records}))

        def fail(why: str) -> None:
            if not future.done():
                future.set_exception(DeliveryFailed(f"outputs to {topics} were not delivered: {why}"))
            self._give_up(why)

        def settle(pending: _Pending) -> None:
            watch.cancel()
            if pending.error is not None:
                fail(pending.error.str())
            elif not future.done():
                future.set_result(pending.offsets)

        timeout_s = self._delivery_timeout_s
        watch = loop.call_later(timeout_s, fail, f"the broker did not take them within {timeout_s:g} s")
        pending = _Pending(len(records), len(reporting), lambda done: _call(loop, settle, done))
        try:
            for index, record in enumerate(records):
                report = partial(pending.report, index) if index in reporting else None
                if not self._taken(record, report):
                    await self._produce(record, report)
        except DeliveryFailed as error:
            watch.cancel()
            self._give_up(str(error))
            raise
        return future

    async def deliver(self, records: Sequence[OutputRecord]) -> list[int]:
        """Produce records in order, wait until the broker has all of them, and return the offset of each.

        Raises
        ------
        DeliveryFailed
            When any of them was not delivered; others may have been.
        """
        return await (await self.send(records))

    async def deliver_run(self, records: Sequence[OutputRecord]) -> None:
        """Produce records of one partition in order, and wait until the broker has all of them.

        Only the last one is reported on: a producer that leaves no gap has delivered those before it, or fails with them.
        A report costs as much as sending the record.

        Parameters
        ----------
        records
            All with the same topic and partition.

        Raises
        ------
        DeliveryFailed
            When any of them was not delivered; others may have been.
        """
        if len({(record.topic, record.partition) for record in records}) > 1:
            raise ValueError("a run of records has one topic and partition")
        await (await self._send(records, range(len(records))[-1:]))

    def _taken(self, record: OutputRecord, report: Report | None) -> bool:
        """Hand a record to the producer; False when its queue is full."""
        if self._failure is not None:
            raise DeliveryFailed(f"nothing is sent any more after a failed delivery: {self._failure}")
        options: dict[str, Any] = {}
        if record.partition is not None:
            options["partition"] = record.partition
        if record.headers:
            options["headers"] = list(record.headers)
        if record.timestamp_ms is not None and record.timestamp_ms >= 0:
            options["timestamp"] = record.timestamp_ms
        if report is not None:
            options["on_delivery"] = report
        try:
            self._producer.produce(record.topic, record.value, record.key, **options)
        except BufferError:
            return False
        except KafkaException as error:
            raise DeliveryFailed(f"output to {record.topic} was refused: {error.args[0].str()}") from error
        return True

    async def _produce(self, record: OutputRecord, report: Report | None) -> None:
        """Hand a record to the producer, whose queue is full: the poll thread is draining it."""
        waited = 0.0
        while not self._taken(record, report):
            await asyncio.sleep(0.005)
            waited += 0.005
            if waited > self._delivery_timeout_s:
                raise DeliveryFailed(f"the producer's queue stayed full for {waited:.0f} s")

    def trouble(self) -> str | None:
        """Return why nothing can be delivered, None when all is well; asks the broker, for two seconds at most."""
        if self._failure is not None:
            return f"outputs were not delivered: {self._failure}"
        try:
            self._producer.list_topics(timeout=2)
        except KafkaException as error:
            return f"Kafka does not answer: {error.args[0].str()}"
        return None

    def _give_up(self, why: str) -> None:
        if self._failure is None:
            self._failure = why
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(0.1)

    def close(self, timeout_s: float = 5.0) -> int:
        """Flush, stop the poll thread and return how many records remain undelivered."""
        remaining = self._producer.flush(timeout_s)
        self._closed.set()
        self._poller.join(1.0)
        return remaining


def _call(loop: asyncio.AbstractEventLoop, settle: Callable[[_Pending], None], pending: _Pending) -> None:
    # After a hard stop deliveries may be reported to a loop that has gone.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(settle, pending)
