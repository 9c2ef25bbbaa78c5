"""The workers' metrics by attribute; `serving.metrics` has the list."""

from __future__ import annotations

from collections.abc import Iterable

from serving.metrics import MetricSet


class Metrics(MetricSet):
    """All metrics of a stream worker.

    Attributes
    ----------
    records, batches
        Input taken, by stage.
    repeated
        Records that came again and were skipped because the stage had them already, by stage.
    gaps
        Offsets that the log did not contain between two batches, by stage.
    outputs
        Records sent, by topic.
    dead_letters
        Dead letters, by stage and reason.
    counters
        Whatever a stage counts, by stage and name.
    batch_seconds, checkpoint_seconds, recovery_seconds, record_age_seconds
        Durations, by stage.
    position, end
        Next offset to process and end of the log as last seen, by topic and partition.
    saved, lag
        Offset of the last checkpoint, and how far it is from the end, by topic and partition.
    state_items, saved_bytes
        Items of state held, by topic and partition; bytes written by checkpoints, by stage.
    ticks, rebalances, ignored_state
        Counts.
    policy_version, policy_age_seconds
        By policy.
    """

    def __init__(self) -> None:
        super().__init__("streams")
        counter, gauge, histogram = self.counter, self.gauge, self.histogram
        self.records = counter("steersman_stream_records")
        self.batches = counter("steersman_stream_batches")
        self.repeated = counter("steersman_stream_repeated")
        self.gaps = counter("steersman_stream_gap_offsets")
        self.outputs = counter("steersman_stream_outputs")
        self.dead_letters = counter("steersman_stream_dead_letters")
        self.counters = counter("steersman_stream_stage_events")
        self.batch_seconds = histogram("steersman_stream_batch_seconds")
        self.checkpoint_seconds = histogram("steersman_stream_checkpoint_seconds")
        self.recovery_seconds = histogram("steersman_stream_recovery_seconds")
        self.record_age_seconds = histogram("steersman_stream_record_age_seconds")
        self.position = gauge("steersman_stream_position")
        self.end = gauge("steersman_stream_end")
        self.saved = gauge("steersman_stream_saved")
        self.lag = gauge("steersman_consumer_lag_records")
        self.state_items = gauge("steersman_stream_state_items")
        self.saved_bytes = counter("steersman_stream_saved_bytes")
        self.ticks = counter("steersman_stream_ticks")
        self.rebalances = counter("steersman_stream_rebalances")
        self.ignored_state = counter("steersman_stream_ignored_state")
        self.policy_version = gauge("steersman_policy_version")
        self.policy_age_seconds = gauge("steersman_policy_age_seconds")

    def expect(self, stages: Iterable[str]) -> None:
        """Show the counters of stages as 0 before they count: a rate needs a first value."""
        for stage in stages:
            for counter in (self.records, self.batches, self.repeated, self.gaps, self.saved_bytes):
                counter.labels(stage)
