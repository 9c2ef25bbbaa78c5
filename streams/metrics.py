"""The workers' metrics: one list, typed, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """All metrics of a stream worker.

    Attributes
    ----------
    registry
        The registry they are in.
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
    batch_seconds, checkpoint_seconds, recovery_seconds
        Durations, by stage.
    position, end
        Next offset to process and end of the log as last seen, by topic and partition.
    saved
        Offset of the last checkpoint, by topic and partition.
    state_items, saved_bytes
        Items of state held, by topic and partition; bytes written by checkpoints, by stage.
    ticks, rebalances, ignored_state
        Counts.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"steersman_stream_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(f"steersman_stream_{name}_seconds", text, ("stage",), buckets=_SECONDS, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"steersman_stream_{name}", text, ("topic", "partition"), registry=registry)

        self.records = counter("records", "Input records processed.", "stage")
        self.batches = counter("batches", "Input batches processed.", "stage")
        self.repeated = counter("repeated", "Input records skipped as already processed.", "stage")
        self.gaps = counter("gap_offsets", "Offsets missing between two batches.", "stage")
        self.outputs = counter("outputs", "Output records sent.", "topic")
        self.dead_letters = counter("dead_letters", "Dead letters delivered.", "stage", "reason")
        self.counters = counter("stage_events", "What the stages count.", "stage", "name")
        self.batch_seconds = seconds("batch", "From a batch's arrival until its outputs are sent.")
        self.checkpoint_seconds = seconds("checkpoint", "Writing a checkpoint.")
        self.recovery_seconds = seconds("recovery", "Restoring a partition's state.")
        self.position = gauge("position", "Next offset to process.")
        self.end = gauge("end", "End of the log as last seen.")
        self.saved = gauge("saved", "Offset of the last checkpoint.")
        self.state_items = gauge("state_items", "Items of state held in memory.")
        self.saved_bytes = counter("saved_bytes", "Bytes of state written by checkpoints.", "stage")
        self.ticks = counter("ticks", "TICK events written.")
        self.rebalances = counter("rebalances", "Times partitions were assigned.")
        self.ignored_state = counter("ignored_state", "State records of former owners ignored.")

    def serve(self, port: int) -> int:
        """Serve ``/metrics`` on a loopback port (0: any free one) and return the port.

        Raises
        ------
        OSError
            When the port is taken.
        """
        server, _ = start_http_server(port, addr="127.0.0.1", registry=self.registry)
        return int(server.server_port)
