"""The event clock of one partition, and what to do with event times that cannot be right."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_AHEAD_US: Final = 5 * 60 * 1_000_000
"""How far an event time may be ahead of its record's Kafka timestamp; unit: microseconds."""
MAX_BEHIND_US: Final = 7 * 24 * 3600 * 1_000_000
"""How far an event time may lie behind its record's Kafka timestamp; unit: microseconds."""


class PartitionClock:
    """Highest event time seen in one partition, and the watermark behind it.

    One event from the far future would otherwise close every open window, and one from the far past would open a
    window nobody will look at again. An event time that is too far from the Kafka timestamp of its record
    is replaced by that timestamp. Both numbers are in the log, so a replay gives the same times.

    Parameters
    ----------
    lateness_us : int
        How far the watermark stays behind the clock; unit: microseconds.
    max_ahead_us, max_behind_us : int, optional
        Bounds of the plausible; unit: microseconds.

    Attributes
    ----------
    now_us : int
        Highest event time seen, 0 before the first event; unit: microseconds since 1970-01-01 UTC.
    """

    __slots__ = ("_ahead", "_behind", "lateness_us", "now_us")

    def __init__(self, lateness_us: int, max_ahead_us: int = MAX_AHEAD_US, max_behind_us: int = MAX_BEHIND_US) -> None:
        self.lateness_us = lateness_us
        self._ahead = max_ahead_us
        self._behind = max_behind_us
        self.now_us = 0

    @property
    def watermark_us(self) -> int:
        """No event before this time is expected any more; unit: microseconds since 1970-01-01 UTC."""
        return self.now_us - self.lateness_us

    def event_time(self, ts_us: int, record_ts_us: int) -> int:
        """Time to use for an event: its own if plausible, its record's otherwise.

        Parameters
        ----------
        ts_us : int
            Event time; unit: microseconds since 1970-01-01 UTC.
        record_ts_us : int
            Kafka timestamp of the record, zero or less when the broker keeps none (then the
            clock itself is the reference, and the first event is believed).

        Returns
        -------
        int
            ``ts_us``, or the reference when ``ts_us`` is skewed.
        """
        reference = record_ts_us if record_ts_us > 0 else self.now_us
        if reference > 0 and not reference - self._behind <= ts_us <= reference + self._ahead:
            return reference
        return ts_us

    def plausible(self, ts_us: NDArray[np.int64], record_ts_us: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of many event times `event_time` certainly leaves as they are, whatever the clock shows.

        Parameters
        ----------
        ts_us, record_ts_us : ndarray of int64, shape (n,)
            As for `event_time`.

        Returns
        -------
        ndarray of bool, shape (n,)
        """
        behind, ahead = record_ts_us - self._behind, record_ts_us + self._ahead
        return (record_ts_us > 0) & (behind <= ts_us) & (ts_us <= ahead)

    def advance(self, ts_us: int) -> bool:
        """Move the clock to an event time; False when it was there already (it never goes back)."""
        if ts_us <= self.now_us:
            return False
        self.now_us = ts_us
        return True
