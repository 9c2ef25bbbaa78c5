"""Where trace events go: the contract of a sink, and one that keeps them in memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from steersman.errors import InvalidRecord
from steersman.finalize import finalize
from steersman.redaction import Redactor, redactor_of


class EventSink(Protocol):
    """Takes trace events off the caller's hands. No method blocks longer than its timeout, and none raises."""

    def offer(self, record: dict[str, Any]) -> bool:
        """Take over a record (the caller must not change it any more); False when it was refused and counted."""
        ...

    def flush(self, timeout_s: float) -> int:
        """Wait until everything taken is delivered, or for `timeout_s`; returns how many events still are not."""
        ...

    def close(self, timeout_s: float) -> int:
        """Flush, then stop; returns how many events were left undelivered."""
        ...

    def stats(self) -> dict[str, Any]:
        """Counters since the start."""
        ...


class MemorySink:
    """Keeps finished events in a list: for tests, notebooks and simulations.

    Parameters
    ----------
    redact : bool or Redactor
        As for `Tracer`.

    Attributes
    ----------
    records : list of dict
        Events exactly as they would have been encoded.
    """

    def __init__(self, *, redact: bool | Redactor = True) -> None:
        self._redactor = redactor_of(redact)
        self.records: list[dict[str, Any]] = []
        self._dropped: Counter[str] = Counter()
        self._problems: Counter[str] = Counter()
        self._lock = threading.Lock()

    def offer(self, record: dict[str, Any]) -> bool:
        """Keep a record, cleaned; False when it is not one that could be sent."""
        try:
            clean = finalize(record, self._problems, self._redactor)
        except InvalidRecord as error:
            with self._lock:
                self._dropped[f"invalid:{error.reason}"] += 1
            return False
        with self._lock:
            self.records.append(clean)
        return True

    def flush(self, timeout_s: float) -> int:
        """Nothing is ever under way."""
        return 0

    def close(self, timeout_s: float) -> int:
        """Nothing is ever under way."""
        return 0

    def stats(self) -> dict[str, Any]:
        """Counters since the start, under the names of `steersman.sender.Sender.stats`."""
        with self._lock:
            return {
                "enqueued": len(self.records),
                "sent": len(self.records),
                "dropped": dict(self._dropped),
                "problems": dict(self._problems),
                "remaining": 0,
            }


def merged(counters: Mapping[str, int]) -> dict[str, int]:
    """Plain, sorted copy of a counter."""
    return {str(name): count for name, count in sorted(counters.items())}
