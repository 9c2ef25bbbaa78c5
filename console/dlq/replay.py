"""Writing dead letters back to where they came from, and marking them."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from console.dlq.letter import (
    REPLAY_OF,
    REPLAYED_AT,
    REPLAYED_TO,
    REPLAYS,
    Letter,
    original_headers,
    place_text,
)
from steersman.errors import SteersmanError, Unreachable
from steersman.kafka_config import kafka_logger, producer_config
from streams.partition_log import LogRecord

BATCH = 200
"""Letters written before their marks are; a crash leaves so many unmarked at most, and their readers drop repeats."""


@dataclass
class Replayed:
    """What was done.

    Attributes
    ----------
    written
        (letter, where it is now), in the order of writing.
    marked
        How many of them were marked.
    """

    written: list[tuple[Letter, str]] = field(default_factory=list)
    marked: int = 0


class Replayer:
    """Writes records back: same key, bytes, timestamp, headers and partition as they had, so that whoever knows their id finds it again.

    Parameters
    ----------
    brokers
        Bootstrap servers.
    topic
        The dead-letter topic, for the marks.
    timeout_s
        Longest wait for the deliveries of a batch; unit: seconds.
    now
        Clock of the marks.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        timeout_s: float = 30.0,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        # Letters and marks carry more headers than the record had.
        config = producer_config(
            brokers, {"delivery.timeout.ms": int(timeout_s * 1000), "message.max.bytes": 2_000_000, "linger.ms": 5}
        )
        self._producer = Producer(config, logger=kafka_logger)
        self._brokers = brokers
        self._topic = topic
        self._timeout_s = timeout_s
        self._now = now
        self._batch: list[tuple[Letter, LogRecord]] = []
        self._failed = ""
        self.done = Replayed()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Callable[[Letter, LogRecord], None]]:
        """Give a function that writes letters; what it wrote is marked when this ends, on Ctrl-C too."""
        try:
            yield self._add
        finally:
            self._finish()

    def _add(self, letter: Letter, record: LogRecord) -> None:
        self._batch.append((letter, record))
        if len(self._batch) >= BATCH:
            self._finish()

    def _finish(self) -> None:
        batch, self._batch = self._batch, []
        before = len(self.done.written)
        records: dict[str, LogRecord] = {}
        try:
            for letter, record in batch:
                records[letter.id] = record
                self._write(letter, record)
            self._flush()
        finally:
            for letter, where in self.done.written[before:]:
                self._mark(letter, records[letter.id], where)
            self._flush()

    def _write(self, letter: Letter, record: LogRecord) -> None:
        if letter.source is None:
            raise SteersmanError(f"dead letter {letter.id} does not say where it came from")
        topic, partition, _ = letter.source

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self.done.written.append((letter, f"{topic}[{partition}]@{message.offset()}"))
            else:
                self._failed = self._failed or f"{letter.id}: {error.str()}"

        self._produce(
            topic,
            partition,
            record,
            [
                *original_headers(record.headers),
                (REPLAYS, str(letter.replays + letter.marks + 1).encode()),
                (REPLAY_OF, place_text(letter.source).encode()),
            ],
            delivered,
        )

    def _mark(self, letter: Letter, record: LogRecord, where: str) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is None:
                self.done.marked += 1
            else:
                self._failed = self._failed or f"the mark of {letter.id}: {error.str()}"

        at = self._now().isoformat(timespec="seconds")
        headers = [(name, value) for name, value in record.headers if name not in (REPLAYED_TO, REPLAYED_AT)]
        marks = [(REPLAYED_TO, where.encode()), (REPLAYED_AT, at.encode())]
        self._produce(self._topic, letter.partition, record, [*headers, *marks], delivered)

    def _produce(
        self, topic: str, partition: int, record: LogRecord, headers: list[tuple[str, Any]], delivered: Any
    ) -> None:
        try:
            self._producer.produce(
                topic,
                key=record.key,
                value=record.value,
                partition=partition,
                headers=headers,
                timestamp=record.timestamp_ms,
                on_delivery=delivered,
            )
        except (KafkaException, BufferError) as error:
            self._failed = self._failed or str(error)

    def _flush(self) -> None:
        left = self._producer.flush(self._timeout_s)
        if left or self._failed:
            self._producer.purge()
            raise Unreachable(
                f"Kafka at {self._brokers} for the replay ({self._failed or f'{left} records not acknowledged'})",
                f"{len(self.done.written)} letters are written, {self.done.marked} of them marked as replayed; run the "
                "command again for the rest (what was written twice is dropped as a repeat)",
            )
