"""Records that cannot be processed: the dead-letter record, and the brake that keeps it the exception.

Its headers are those of `steersman.dead_letter`.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from steersman.dead_letter import failure_headers, fitted
from steersman.errors import SteersmanError
from streams.outputs import OutputRecord
from streams.record_batch import RecordBatch


class DeadLetterStage(StrEnum):
    """Where in the flow a record failed."""

    DESERIALIZE = "DESERIALIZE"
    VALIDATE = "VALIDATE"
    JOIN = "JOIN"
    LEARN = "LEARN"
    SINK = "SINK"


class TooManyDeadLetters(SteersmanError):
    """So many records fail that the fault must be elsewhere; the worker stops instead of draining the topic."""


def dead_letter(
    topic: str, batch: RecordBatch, index: int, stage: DeadLetterStage, error: Exception, *, connector: str
) -> OutputRecord:
    """Build the dead-letter record of one record.

    Parameters
    ----------
    topic
        The dead-letter topic.
    batch, index
        The record that failed.
    stage
        Where it failed.
    error
        Why. Its stack trace is kept when it has one.
    connector
        Who found out: the name of the stream stage.

    Notes
    -----
    Key, value, timestamp and headers are the original ones, unless the letter is too large for Kafka
    (`steersman.dead_letter.fitted`). Headers of the same names, from an earlier death, stay; ours come after them.
    """
    why = failure_headers(batch.topic, batch.partition, batch.offsets[index], stage.value, error, connector=connector)
    key, value, headers = fitted(batch.keys[index], batch.values[index], batch.headers[index], why)
    return OutputRecord(
        topic,
        key,
        value,
        headers=[(name, content or b"") for name, content in headers],
        timestamp_ms=batch.timestamps[index],
    )


class DlqLimit:
    """Brake on dead letters.

    Parameters
    ----------
    max_ratio
        Largest share of failures among the last `window` records; checked once the window is full.
    window
        Length of that window; unit: records.
    max_consecutive
        Most failures in a row.

    Notes
    -----
    The idea is arroyo's `DlqLimit`: after a bad deployment, or with a foreign topic, all records fail, and
    a queue of millions of dead letters helps nobody.
    """

    def __init__(self, max_ratio: float = 0.2, window: int = 1000, max_consecutive: int = 200) -> None:
        self._max_ratio = max_ratio
        self._window = window
        self._max_consecutive = max_consecutive
        self._recent: deque[int] = deque()  # ordinal numbers of the failures within the window
        self._seen = 0
        self._consecutive = 0

    def passed(self, count: int = 1) -> None:
        """Count records that went well."""
        if count > 0:
            self._seen += count
            self._consecutive = 0

    def failed(self, what: str) -> None:
        """Count a record that failed.

        Parameters
        ----------
        what
            The record and why, for the message.

        Raises
        ------
        TooManyDeadLetters
            When this one is too many.
        """
        self._seen += 1
        self._consecutive += 1
        self._recent.append(self._seen)
        while self._recent and self._recent[0] <= self._seen - self._window:
            self._recent.popleft()
        if self._consecutive > self._max_consecutive:
            raise TooManyDeadLetters(
                f"{self._consecutive} records in a row failed, {self._max_consecutive} are allowed; the last was {what}. "
                "The worker stops so as not to drain the topic. Find out what is written to the topic (or what this "
                "release cannot read), then start it again; STEERSMAN_DEAD_LETTER_MAX_CONSECUTIVE raises the limit"
            )
        if self._seen >= self._window and len(self._recent) > self._max_ratio * self._window:
            raise TooManyDeadLetters(
                f"{len(self._recent)} of the last {self._window} records failed, a share of {self._max_ratio:g} is "
                f"allowed; the last was {what}. The worker stops so as not to drain the topic. Find out what is "
                "written to it, then start the worker again; STEERSMAN_DEAD_LETTER_MAX_RATIO raises the limit"
            )
