"""The writers of all tables, and their turns at the inserter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import structlog

from sinks.attempt import Attempt
from sinks.inserter import Inserter
from sinks.tables import Message
from sinks.writer import Writer

log = structlog.get_logger("steersman.sink")


class Writers:
    """Fills batches while others are inserted; for one thread, and it knows no Kafka.

    Parameters
    ----------
    writers
        By topic.
    inserter
        Where batches are inserted.
    stored
        Told a topic, and the offsets from which to go on by partition, when what is before them is stored.
    clock
        Monotonic time; unit: seconds.
    """

    def __init__(
        self,
        writers: Mapping[str, Writer],
        inserter: Inserter,
        stored: Callable[[str, dict[int, int]], object],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._writers = writers
        self._inserter = inserter
        self._stored = stored
        self._clock = clock

    @property
    def full(self) -> set[str]:
        """Topics of which no more is to be read now."""
        return {topic for topic, writer in self._writers.items() if writer.full}

    def add(self, message: Message) -> None:
        """Take a message."""
        self._writers[message.topic].add(message, self._clock())

    def drop(self, topic: str, partition: int) -> None:
        """Forget a partition, which somebody else reads now."""
        self._writers[topic].drop(partition)

    def turn(self) -> None:
        """Take note of the inserts that have ended, and begin those that are due; does not wait for any.

        Raises
        ------
        TooManyRejected
            As `Writer.begin`.
        """
        for attempt in self._inserter.finished():
            self._finish(attempt)
        now = self._clock()
        for writer in self._writers.values():
            if writer.due(now):
                self._begin(writer)
            writer.prepare()

    def drain(self, topics: Iterable[str]) -> None:
        """Write all that there is of topics, as long as ClickHouse takes it; the healthy tables come first.

        Of a ClickHouse that hangs two attempts are waited for: the one that runs, and the next. Kafka waits for a member
        longer than that (`max.poll.interval.ms`).

        Raises
        ------
        TooManyRejected
            As `Writer.begin`.
        """
        for attempt in self._inserter.withdraw():
            self._writers[attempt.table.topic].withdraw()
        for writer in sorted((self._writers[topic] for topic in topics), key=lambda w: w.blocked):
            while writer.waiting:
                self._begin(writer)
                for attempt in self._inserter.finished(wait_for_one=True):
                    self._finish(attempt)
                if writer.blocked and not writer.under_way:
                    return

    def _begin(self, writer: Writer) -> None:
        attempt = writer.begin()
        if attempt is not None:
            self._inserter.begin(attempt)

    def _finish(self, attempt: Attempt) -> None:
        topic = attempt.table.topic
        writer = self._writers[topic]
        was_blocked = writer.blocked
        positions = writer.finish(self._clock())
        if writer.blocked:
            log.warning("insert_failed", table=writer.table.name, error=writer.last_error, waiting=writer.waiting)
        elif was_blocked:
            log.info("resumed", table=writer.table.name)
        if positions:
            self._stored(topic, positions)
