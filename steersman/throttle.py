"""Warnings that cannot flood a log."""

from __future__ import annotations

import logging
import threading

from steersman.clock import SYSTEM_CLOCK, Clock

logger = logging.getLogger("steersman")
logger.addHandler(logging.NullHandler())


class Throttle:
    """Write at most one warning per interval; the next one says how many were held back.

    Parameters
    ----------
    interval_s : float
        Least time between two lines, in seconds.
    clock : Clock
        Source of monotonic time.
    """

    def __init__(self, interval_s: float = 20.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self._interval_us = int(interval_s * 1e6)
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Begin anew; in a forked child, where the lock may be held by a thread that is not there."""
        self._last: int | None = None
        self._held = 0
        self._lock = threading.Lock()

    def warn(self, message: str, *args: object) -> bool:
        """Log a warning, or hold it back; returns whether it was written. Never blocks."""
        if not self._lock.acquire(blocking=False):
            return False  # another thread is warning right now
        try:
            now = self._clock.monotonic_us()
            if self._last is not None and now - self._last < self._interval_us:
                self._held += 1
                return False
            held, self._held, self._last = self._held, 0, now
        finally:
            self._lock.release()
        suffix = f" ({held} more since the last warning)" if held else ""
        logger.warning(message + suffix.replace("%", "%%"), *args)
        return True
