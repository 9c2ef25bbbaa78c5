"""A Kafka producer that acknowledges everything at once: the tracer without its broker, the sender's thread included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steersman.sender import Sender

Report = Callable[[Any, Any], None]


class MemoryProducer:
    """Acknowledges every record at the next poll and keeps none."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._reports: list[Report] = []

    def produce(self, topic: str, *, value: bytes, key: bytes, on_delivery: Report) -> None:
        """Take a record."""
        self._reports.append(on_delivery)

    def poll(self, timeout_s: float) -> int:
        """Report what has been taken as delivered."""
        reports, self._reports = self._reports, []
        for report in reports:
            report(None, None)
        return len(reports)

    def purge(self) -> None:
        """Nothing is ever under way."""

    def __len__(self) -> int:
        return len(self._reports)


def memory_sender() -> Sender:
    """A sender as in production, but for its producer."""
    return Sender("127.0.0.1:1", "trace", max_queue=1_000_000, make_producer=MemoryProducer)  # type: ignore[arg-type]
