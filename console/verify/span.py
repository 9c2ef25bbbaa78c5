"""The part of the log that is looked at: whole minutes of Kafka timestamps."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from console.verify.equations import minute_text
from steersman.errors import ConfigError

OPEN = 1 << 40
"""Minute that stands for no end."""


@dataclass(frozen=True)
class Span:
    """Minutes since 1970-01-01 UTC: `start` is in, `end` is not.

    Attributes
    ----------
    whole
        Whether this is all that the log ever held.
    """

    start: int = 0
    end: int = OPEN
    whole: bool = True

    def __contains__(self, minute: int) -> bool:
        return self.start <= minute < self.end

    @property
    def text(self) -> tuple[str | None, str | None]:
        """Both ends, None where open."""
        return (
            minute_text(self.start) if self.start else None,
            minute_text(self.end) if self.end < OPEN else None,
        )


def parse_time(text: str, option: str) -> dt.datetime:
    """Read a time of the command line: ISO 8601, UTC unless it names a zone.

    Raises
    ------
    ConfigError
        Says what to write.
    """
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError as e:
        raise ConfigError(f"{option} {text!r} is not a time: write e.g. 2026-11-23T14:05 (UTC)") from e
    return at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at


def parse_minute(text: str, option: str) -> int:
    """Read a time as `parse_time` does, cut to its minute since 1970-01-01 UTC."""
    return int(parse_time(text, option).timestamp()) // 60
