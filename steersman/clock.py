"""Where the time comes from, so that tests and simulations can bring their own."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one to say when, one to say how long."""

    def now_us(self) -> int:
        """Wall clock: microseconds since 1970-01-01 UTC."""
        ...

    def monotonic_us(self) -> int:
        """A clock that never steps back, in microseconds from an arbitrary origin."""
        ...


class SystemClock:
    """The operating system's clocks."""

    __slots__ = ()

    def now_us(self) -> int:
        """Wall clock: microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1000

    def monotonic_us(self) -> int:
        """A clock that never steps back, in microseconds from an arbitrary origin."""
        return time.perf_counter_ns() // 1000


SYSTEM_CLOCK = SystemClock()
