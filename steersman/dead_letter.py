"""Headers of a dead letter: what failed, where and why, next to the record's own bytes.

The names are those of Kafka Connect (`DeadLetterQueueReporter`), which most tools know; `reason` is ours.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HEADER = "__connect.errors."
MAX_MESSAGE = 1024
"""Longest message kept; unit: bytes."""
MAX_STACKTRACE = 4096
"""Longest stack trace kept, its end; unit: bytes."""

MAX_LETTER = 960_000
"""Largest letter that goes out whole, headers included: with its framing it fits into a batch of Kafka's default size. Unit: bytes."""
CUT = 65_536
"""What is kept of a value, and of the record's own headers, when the letter would be larger; unit: bytes."""
_CUT_KEY = 1024

Header = tuple[str, bytes | None]


@dataclass(frozen=True)
class Failure:
    """What the headers of a dead letter say.

    Attributes
    ----------
    topic, partition, offset
        The record that failed; '' and -1 where the headers do not say.
    stage
        DESERIALIZE, VALIDATE, JOIN, LEARN or SINK.
    reason
        Low-cardinality name of what was wrong.
    exception_class, message, stacktrace
        The error.
    """

    topic: str = ""
    partition: int = -1
    offset: int = -1
    stage: str = ""
    reason: str = ""
    exception_class: str = ""
    message: str = ""
    stacktrace: str = ""


def failure_headers(
    topic: str, partition: int, offset: int, stage: str, error: Exception, *, connector: str
) -> list[Header]:
    """Build the headers that say why a record failed; append them to the record's own.

    Parameters
    ----------
    topic, partition, offset
        The record that failed.
    stage
        Where it failed: DESERIALIZE, VALIDATE, JOIN, LEARN or SINK.
    error
        Why. Its stack trace is kept when it has one.
    connector
        Who found out, e.g. the name of the stream stage.
    """
    stack = "".join(traceback.format_exception(error)) if error.__traceback__ is not None else ""
    details = {
        "topic": topic,
        "partition": str(partition),
        "offset": str(offset),
        "connector.name": connector,
        "task.id": str(partition),
        "stage": stage,
        "class.name": connector,
        "exception.class.name": f"{type(error).__module__}.{type(error).__qualname__}",
        "exception.message": _cut(str(error), MAX_MESSAGE),
        "exception.stacktrace": _cut(stack, MAX_STACKTRACE, end=True),
        "reason": str(getattr(error, "reason", type(error).__name__)),
    }
    return [(HEADER + name, value.encode("utf-8", "replace")) for name, value in details.items()]


def fitted(
    key: bytes | None,
    value: bytes | None,
    own: Sequence[Header],
    why: Sequence[Header],
    limit: int = MAX_LETTER,
) -> tuple[bytes | None, bytes | None, list[Header]]:
    """Make key, value and headers of a dead letter that Kafka will take, whatever the record that failed was.

    A record may be larger than a letter can be: Kafka's limits are limits on compressed batches, and a letter has more headers
    than its record. A stage whose letter is refused would stop, and stop again wherever it goes on.

    Parameters
    ----------
    key, value
        Of the record that failed.
    own
        Its headers; where the letter is cut they are kept as far as they fit, in their order.
    why
        What `failure_headers` says.
    limit
        Largest letter that stays whole, 0 to cut any; unit: bytes.

    Returns
    -------
    tuple
        Key, value, headers. What is cut says so in a header ``__connect.errors.truncated``, the length that the value had.
    """
    if _size(key) + _size(value) + sum(map(_header_size, [*own, *why])) <= limit:
        return key, value, [*own, *why]
    left, kept = CUT, []
    for header in own:
        left -= _header_size(header)
        if left < 0:
            break
        kept.append(header)
    truncated: Header = (HEADER + "truncated", str(_size(value)).encode())
    return key and key[:_CUT_KEY], value and value[:CUT], [*kept, *why, truncated]


def _size(content: bytes | None) -> int:
    return len(content or b"")


def _header_size(header: Header) -> int:
    # Per header besides name and content two lengths, of at most five bytes each.
    return len(header[0].encode()) + _size(header[1]) + 10


def read_failure(headers: Iterable[Header] | Sequence[tuple[str, bytes | str | None]]) -> Failure:
    """Read the headers of a dead letter, whatever they hold; of a repeated header the last counts."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name.startswith(HEADER):
            found[name[len(HEADER) :]] = value if isinstance(value, str) else (value or b"").decode("utf-8", "replace")
    return Failure(
        topic=found.get("topic", ""),
        partition=_integer(found.get("partition"), 31),
        offset=_integer(found.get("offset"), 63),
        stage=found.get("stage", ""),
        reason=found.get("reason", ""),
        exception_class=found.get("exception.class.name", ""),
        message=found.get("exception.message", ""),
        stacktrace=found.get("exception.stacktrace", ""),
    )


def _cut(text: str, limit: int, *, end: bool = False) -> str:
    """Cut to so many bytes of UTF-8 without cutting a character; keep the end when told so."""
    raw = text.encode("utf-8", "replace")
    return (raw[-limit:] if end else raw[:limit]).decode("utf-8", "ignore") if len(raw) > limit else text


def _integer(text: str | None, bits: int) -> int:
    """Parse a number of at most that many bits, -1 when it is none."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 19:
        return -1
    number = int(text)
    return number if number < 1 << bits else -1
