"""How long the broker may collect records before it answers a fetch: not at all while there are few, longer when many.

A batch costs its consumer about a millisecond however few its records are, and the broker and the client each fetch costs
them. So where records come fast, short batches spend most of the time on themselves, and the worker only gets around to
longer ones by falling behind.
"""

from __future__ import annotations

from typing import Final

import numpy as np

_MEASURED_S: Final = 0.25
_RATES: Final = (1_000.0, 4_000.0, 6_000.0, 10_000.0, 15_000.0)
_SHARES: Final = (0.0, 0.05, 0.075, 0.25, 1.0)
"""Of the longest time, at so many records a second; in between in proportion."""
ENOUGH_BYTES: Final = 1 << 20
"""A fetch that lingers is answered at once when so much is there."""


class FetchPace:
    """Measures the rate of records, and says how long a fetch may linger.

    Parameters
    ----------
    longest_ms
        Longest time, from 15,000 records a second on; 0: never any; unit: milliseconds. Below 1,000 nothing lingers; at 5,000
        a sixteenth of it, which a feedback waits twice (as an event and as a reward) and which is about how long a round
        through all partitions takes anyway. From 15,000 on a worker's core, or what it has of one, has little time to spare.
    """

    def __init__(self, longest_ms: int) -> None:
        self._longest_ms = longest_ms
        self._began_s: float | None = None
        self._records = 0
        self._rate = 0.0

    def add(self, records: int, now_s: float) -> None:
        """Count records that have come.

        Parameters
        ----------
        records
            How many; 0 for none, which tells as well.
        now_s
            Monotonic time; unit: seconds.
        """
        if self._began_s is None:
            self._began_s = now_s
        self._records += records
        passed_s = now_s - self._began_s
        if passed_s >= _MEASURED_S:
            self._rate = (self._rate + self._records / passed_s) / 2
            self._began_s, self._records = now_s, 0

    @property
    def rate(self) -> float:
        """Records a second, lately."""
        return self._rate

    @property
    def linger_ms(self) -> int:
        """How long a fetch may linger; unit: milliseconds."""
        return round(self._longest_ms * float(np.interp(self._rate, _RATES, _SHARES)))
