"""How often somebody may ask: a token bucket for each, in bounded memory. Pure but for its clock."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_KEYS = 10_000
"""Callers remembered; of more, those that asked longest ago are forgotten, which gives them a full bucket."""


class RateLimit:
    """Lets each key ask `burst` times at once and `per_s` times a second in the long run (a token bucket).

    Parameters
    ----------
    per_s
        Requests that come back; unit: per second. 0 for no limit.
    burst
        Requests at once; `per_s` rounded up, and at least 1, unless given.
    monotonic_s
        Clock; unit: seconds.
    """

    def __init__(
        self, per_s: float, burst: int | None = None, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s = per_s
        self._burst = float(max(1, math.ceil(per_s)) if burst is None else burst)
        self._now = monotonic_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str) -> int:
        """Count a request.

        Parameters
        ----------
        key
            Who asks.

        Returns
        -------
        int
            0 when it may be answered; else, for Retry-After, the time until the next one may; unit: whole seconds.
        """
        if self._per_s <= 0:
            return 0
        now = self._now()
        left, at = self._buckets.get(key, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        wait = 0 if left >= 1 else math.ceil((1 - left) / self._per_s)
        self._buckets[key] = (left if wait else left - 1, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > MOST_KEYS:
            self._buckets.popitem(last=False)
        return wait
