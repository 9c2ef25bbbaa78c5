"""The sink's metrics, brought up to date from what its writers count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from serving.metrics import MetricSet
from sinks.fold import Folded
from sinks.writer import Writer

_COUNTED = ("rows", "inserts", "rejected", "skipped", "failed_attempts", "halved")


class SinkMetrics(MetricSet):
    """All metrics of a sink.

    Attributes
    ----------
    insert_seconds
        Duration of inserts, by table.
    lag
        By topic and partition.
    """

    def __init__(self) -> None:
        super().__init__("sink")
        self._counters = {name: self.counter(f"steersman_sink_{name}") for name in _COUNTED}
        self._refusals = self.counter("steersman_sink_refusals")
        self._waiting = self.gauge("steersman_sink_waiting_records")
        self._blocked = self.gauge("steersman_sink_blocked")
        self.insert_seconds = self.histogram("steersman_sink_insert_seconds")
        self.lag = self.gauge("steersman_consumer_lag_records")
        self._folded = self.counter("steersman_sink_folded_traces")
        self._fold_failures = self.counter("steersman_sink_fold_failures")
        self._told: dict[str, Counter[str]] = {}

    def folded(self, done: Folded | None) -> None:
        """Count a round of folding, None for one that failed."""
        if done is None:
            self._fold_failures.inc()
        else:
            self._folded.inc(done.traces)

    def update(self, writers: Iterable[Writer]) -> None:
        """Take over what has been counted since the last call."""
        for writer in writers:
            table = writer.table.name
            counted = Counter(writer.counters)
            grown = counted - self._told.get(table, Counter())
            self._told[table] = counted
            for name, counter in self._counters.items():
                counter.labels(table).inc(grown[name])
            for name, count in grown.items():
                if name.startswith("code_"):
                    self._refusals.labels(table, name.removeprefix("code_")).inc(count)
            self._waiting.labels(table).set(writer.waiting)
            self._blocked.labels(table).set(writer.blocked)
