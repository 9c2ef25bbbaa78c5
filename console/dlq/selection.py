"""Which dead letters a command is about: filters by stage, reason, source, time and place."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from console.dlq.letter import Letter
from steersman.errors import ConfigError

_AGO = re.compile(r"(\d{1,6})([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_OFFSETS = re.compile(r"(\d{1,9}):(\d{1,18})?(?:(-)(\d{1,18})?)?\Z")
_LAST = 1 << 63


@dataclass(frozen=True)
class Selection:
    """What a letter must be.

    Attributes
    ----------
    stages, reasons, topics
        Any of them; empty for all. Stages without regard to case.
    since_ms, until_ms
        Kafka timestamp of the record that failed, the first one included; unit: milliseconds since 1970-01-01 UTC.
    offsets
        Ranges of the dead-letter topic as (partition, first, last), both included; empty for all.
    """

    stages: Sequence[str] = ()
    reasons: Sequence[str] = ()
    topics: Sequence[str] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    offsets: Sequence[tuple[int, int, int]] = field(default=())

    def takes(self, letter: Letter) -> bool:
        """Tell whether a letter is selected."""
        return (
            (not self.stages or letter.stage.upper() in {stage.upper() for stage in self.stages})
            and (not self.reasons or letter.reason in self.reasons)
            and (not self.topics or (letter.source is not None and letter.source[0] in self.topics))
            and (self.since_ms is None or letter.timestamp_ms >= self.since_ms)
            and (self.until_ms is None or letter.timestamp_ms < self.until_ms)
            and (
                not self.offsets
                or any(p == letter.partition and first <= letter.offset <= last for p, first, last in self.offsets)
            )
        )


def parse_offsets(text: str) -> tuple[int, int, int]:
    """Read a range of the dead-letter topic: `2:17`, `2:17-40`, `2:17-` or `2:` for the whole partition.

    Raises
    ------
    ConfigError
        Says what to write.
    """
    match = _OFFSETS.match(text)
    if match is None or (match[2] is None and match[3]):
        raise ConfigError(f"--offsets {text!r} is not a range: write PARTITION:OFFSET, 2:17-40, 2:17- or 2:")
    first = int(match[2] or 0)
    last = first if match[2] and not match[3] else int(match[4]) if match[4] else _LAST
    if last < first:
        raise ConfigError(f"--offsets {text!r} ends before it begins")
    return int(match[1]), first, last


def parse_time(text: str, option: str, now_ms: int) -> int:
    """Read a time of the command line: ISO 8601 (UTC unless it names a zone), or how long ago (90s, 15m, 2h, 3d).

    Returns
    -------
    int
        Milliseconds since 1970-01-01 UTC.

    Raises
    ------
    ConfigError
        Says what to write.
    """
    if ago := _AGO.match(text):
        return now_ms - int(ago[1]) * _SECONDS[ago[2]] * 1000
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{option} {text!r} is not a time: write 2026-11-23T14:05 (UTC), or 2h for 2 hours ago"
        ) from error
    return int((at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp() * 1000)
