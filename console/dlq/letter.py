"""A dead letter as the console sees it: what failed, where and why, and whether it was replayed.

A replay leaves its mark in the dead-letter topic itself: the letter is written once more with headers that say where the
replay went. The topic so stays the only record of what was done, the mark lives as long as its letter, and the row of the
letter in ClickHouse, which is one per place of the failed record, shows it too. A mark counts only behind the headers of the
failure: those in front came with the record, from whoever produced it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from steersman.dead_letter import HEADER, read_failure
from streams.partition_log import LogRecord

REPLAYS = "steersman.replay.count"
"""Header of a replayed record: how often it has been, 1 for the first time."""
REPLAY_OF = "steersman.replay.of"
"""Header of a replayed record: topic[partition]@offset of the record that failed."""
REPLAYED_TO = "steersman.replayed.to"
"""Header of a mark: where the replay was written."""
REPLAYED_AT = "steersman.replayed.at"
"""Header of a mark: when, ISO 8601, UTC."""

Headers = list[tuple[str, Any]]
Place = tuple[str, int, int]
"""Topic, partition, offset."""


@dataclass(frozen=True)
class Letter:
    """One dead letter, without its bytes.

    Attributes
    ----------
    partition, offset
        Where it is in the dead-letter topic.
    source
        The record that failed; None when the headers do not say.
    stage, reason, message
        Where it failed and why, as in `steersman.dead_letter.Failure`.
    timestamp_ms
        Kafka timestamp of the record that failed; unit: milliseconds since 1970-01-01 UTC.
    size
        Of the value; unit: bytes. -1 for a tombstone.
    truncated
        Whether only the beginning of the value was kept.
    replays
        How often the record that failed had been replayed before.
    mark
        Where the replay of this letter was written; empty when it is none.
    marks
        How often it was replayed.
    """

    partition: int
    offset: int
    source: Place | None
    stage: str
    reason: str
    message: str
    timestamp_ms: int
    size: int
    truncated: bool
    replays: int
    mark: str = ""
    marks: int = 0

    @property
    def id(self) -> str:
        """What `steersman dlq show` takes."""
        return f"{self.partition}:{self.offset}"

    @property
    def place(self) -> Place:
        """The record that failed, or the letter itself when that is not known."""
        return self.source or ("", self.partition, self.offset)


def read_letter(partition: int, record: LogRecord) -> Letter:
    """Make a letter of a record of the dead-letter topic, whatever its headers hold."""
    failure = read_failure(record.headers)
    known = bool(failure.topic) and failure.partition >= 0 and failure.offset >= 0
    ours = [name for name, _ in record.headers]
    return Letter(
        partition,
        record.offset,
        (failure.topic, failure.partition, failure.offset) if known else None,
        failure.stage,
        failure.reason,
        failure.message,
        record.timestamp_ms,
        -1 if record.value is None else len(record.value),
        HEADER + "truncated" in ours,
        replays_of(record.headers),
        _mark(record.headers),
    )


def original_headers(headers: Headers) -> Headers:
    """Return the headers of the record that failed: without those of failures, replays and marks."""
    ours = (REPLAYS, REPLAY_OF, REPLAYED_TO, REPLAYED_AT)
    return [(name, value) for name, value in headers if not name.startswith(HEADER) and name not in ours]


def replays_of(headers: Headers) -> int:
    """Return how often a record says that it was replayed; 0 when it says nothing that makes sense."""
    texts = [_text(value) for name, value in headers if name == REPLAYS]
    last = texts[-1] if texts else ""
    return int(last) if last.isascii() and last.isdigit() and len(last) < 6 else 0


def place_text(place: Place) -> str:
    """Write a place for people."""
    return f"{place[0]}[{place[1]}]@{place[2]}"


def _mark(headers: Headers) -> str:
    names = [name for name, _ in headers]
    behind = max((i for i, name in enumerate(names) if name.startswith(HEADER)), default=len(names))
    return next((_text(value) for name, value in headers[behind + 1 :] if name == REPLAYED_TO), "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else (value or b"").decode("utf-8", "replace")


def one_per_record(letters: Sequence[Letter]) -> list[Letter]:
    """Return one letter for each record that failed, its first, with the mark that any of its letters has.

    A worker that starts again may write a letter twice, worker and sink may both refuse a record, and a mark is a copy.

    Parameters
    ----------
    letters
        In any order.

    Returns
    -------
    list of Letter
        By partition and offset of the dead-letter topic.
    """
    found: dict[Place, Letter] = {}
    marks: dict[Place, list[str]] = {}
    for letter in sorted(letters, key=lambda one: (one.partition, one.offset)):
        found.setdefault(letter.place, letter)
        if letter.mark:
            marks.setdefault(letter.place, []).append(letter.mark)
    return [
        replace(letter, mark=(marks.get(place) or [""])[-1], marks=len(marks.get(place, ())))
        for place, letter in sorted(found.items(), key=lambda item: (item[1].partition, item[1].offset))
    ]
