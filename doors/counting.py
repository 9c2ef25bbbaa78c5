"""The doors' metrics, by what is counted."""

from __future__ import annotations

from collections import Counter

from doors.intake import Taken
from serving.metrics import MetricSet

DOORS = ("traces", "logs", "feedback", "topic")


class Counting:
    """Counts what comes through the doors.

    Parameters
    ----------
    metrics
        Where to.
    """

    def __init__(self, metrics: MetricSet) -> None:
        self._requests = metrics.counter("steersman_door_requests")
        self._seconds = metrics.histogram("steersman_door_request_seconds")
        self._bytes = metrics.counter("steersman_door_bytes")
        self._items = metrics.counter("steersman_door_items")
        self._events = metrics.counter("steersman_door_events")
        self._refusals = metrics.counter("steersman_door_refusals")
        self._left_out = metrics.counter("steersman_door_left_out")
        self.waiting = metrics.gauge("steersman_door_waiting_events")
        self.in_flight = metrics.gauge("steersman_door_requests_in_flight")
        self.lag = metrics.gauge("steersman_consumer_lag_records")
        for door in DOORS:
            for result in ("taken", "refused"):
                self._items.labels(door, result)
        self._left_out.labels("content_dropped")

    def answered(self, door: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(door, str(status)).inc()
        self._seconds.labels(door).observe(seconds)

    def read(self, door: str, size: int) -> None:
        """Count a body, decompressed."""
        self._bytes.labels(door).inc(size)

    def refused(self, door: str, reason: str) -> None:
        """Count a refusal."""
        self._refusals.labels(door, reason).inc()

    def published(self, door: str, taken: Taken) -> None:
        """Count what Kafka has acknowledged."""
        self._items.labels(door, "taken").inc(taken.mapped.taken)
        self._items.labels(door, "refused").inc(taken.mapped.refused)
        for kind, count in Counter(taken.kinds).items():
            self._events.labels(kind).inc(count)
        for what, count in taken.mapped.counters.items():
            self._left_out.labels(what).inc(count)
