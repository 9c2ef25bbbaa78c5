"""Is a service alive, and is it ready? Alive means that work moves, not that a process exists. Pure.

*Alive*: the service's own loop runs, and where records wait, some were committed within the last `stall_s` seconds. A restart
helps those that are not. *Ready*: nothing is known that keeps it from doing its work; else the reasons. A dependency that is
away makes a service unready, never dead: restarting it would help nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

STALL_S = 120.0
"""Time without progress after which a service counts as dead; unit: seconds. Longer than a rebalance, a slow checkpoint or an insert into a hanging ClickHouse takes."""

Check = Callable[[], str | None]
"""Returns what keeps a service from its work, None when nothing does."""


class Health:
    """What is known about one service; threads may share it.

    Parameters
    ----------
    stall_s
        See `STALL_S`.
    monotonic_s
        Clock; unit: seconds.
    """

    def __init__(self, *, stall_s: float = STALL_S, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._stall_s = stall_s
        self._monotonic_s = monotonic_s
        self._checks: list[Check] = []
        self._lock = threading.Lock()
        self._moved_at = monotonic_s()
        self._loops: dict[str, float] = {}
        self._done: int | None = None
        self._lag = 0

    def check(self, check: Check) -> None:
        """Add a condition of being ready; it is asked on the threads of the endpoint."""
        self._checks.append(check)

    def tick(self, loop: str) -> None:
        """Report that one of several loops of the service runs, about once a second."""
        with self._lock:
            self._loops[loop] = self._monotonic_s()

    def beat(self, *, lag: int, done: int, outage: bool = False) -> None:
        """Report from the service's own loop, about once a second.

        Parameters
        ----------
        lag
            Records that wait: read or not, but not committed.
        done
            Any number that changes whenever records are committed.
        outage
            Whether a dependency is known to be away: then that nothing moves is no fault of this service.
        """
        with self._lock:
            now = self._loops[""] = self._monotonic_s()
            if lag <= 0 or outage or done != self._done or self._lag <= 0:
                self._moved_at = now
            self._lag, self._done = lag, done

    def dead(self) -> list[str]:
        """Return why the service is not alive; empty when it is."""
        with self._lock:
            now = self._monotonic_s()
            silent = [(loop, now - at) for loop, at in self._loops.items() if now - at > self._stall_s]
            stuck, lag = now - self._moved_at, self._lag
        if silent:
            return [f"its {f'{loop} loop'.strip()} has not run for {seconds:.0f} s" for loop, seconds in silent]
        if lag > 0 and stuck > self._stall_s:
            return [f"{lag} records wait, and none was committed for {stuck:.0f} s"]
        return []

    def unready(self) -> list[str]:
        """Return why the service is not ready; empty when it is."""
        return [*self.dead(), *(reason for check in self._checks if (reason := check()) is not None)]
