"""A client of ClickHouse whose inserts wait until they are told how they end."""

from __future__ import annotations

import queue
import threading
from typing import Any

_PATIENCE_S = 30.0


class Gate:
    """Inserts end in the order of `end`; until then they are under way.

    Attributes
    ----------
    seen
        Table and deduplication token of each insert that has begun.
    threads
        Where they ran.
    opened, closed
        How often a client was asked for, and given back.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.threads: set[int] = set()
        self.opened = self.closed = 0
        self._begun = threading.Semaphore(0)
        self._ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def connect(self) -> Gate:
        self.opened += 1
        return self

    def close(self) -> None:
        self.closed += 1

    def begun(self) -> None:
        """Wait until one more insert has begun."""
        assert self._begun.acquire(timeout=_PATIENCE_S), "no insert began"

    def end(self, *outcomes: BaseException | None) -> None:
        """Let so many inserts end, None for well."""
        for outcome in outcomes:
            self._ends.put(outcome)

    def insert(self, table: str, data: Any, *, settings: dict[str, Any], **_: Any) -> None:
        self.seen.append((table, settings["insert_deduplication_token"]))
        self.threads.add(threading.get_ident())
        self._begun.release()
        outcome = self._ends.get(timeout=_PATIENCE_S)
        if outcome is not None:
            raise outcome

    def raw_insert(self, table: str, *, settings: dict[str, Any], **_: Any) -> None:
        self.insert(table, None, settings=settings)
