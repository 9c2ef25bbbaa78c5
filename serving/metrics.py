"""Every metric of every service: one list, from which they are made, tested and documented (``docs/metrics.md``).

Names follow https://prometheus.io/docs/practices/naming/: one prefix, base units, ``_total`` for what only grows. No label holds a
tenant, a trace or anything else that users make up, so the number of series is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from steersman import __version__

Service = Literal["streams", "sink", "doors"]
SERVICES: Final[tuple[Service, ...]] = ("streams", "sink", "doors")
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes
    ----------
    name
        As Prometheus shows it, without the ``_total`` of a counter.
    kind
        Its type.
    help
        What it says, with its unit.
    labels
        Names of its labels.
    services
        Who has it.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]
    services: tuple[Service, ...]

    @property
    def exposed(self) -> str:
        """Name of its series (of a histogram, the first part of them)."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _of(service: Service, prefix: str) -> tuple[Callable[..., Metric], Callable[..., Metric], Callable[..., Metric]]:
    def counter(name: str, text: str, *labels: str) -> Metric:
        return Metric(f"steersman_{prefix}_{name}", "counter", text, labels, (service,))

    def gauge(name: str, text: str, *labels: str) -> Metric:
        return Metric(f"steersman_{prefix}_{name}", "gauge", text, labels, (service,))

    def seconds(name: str, text: str, *labels: str) -> Metric:
        return Metric(f"steersman_{prefix}_{name}_seconds", "histogram", text, labels, (service,))

    return counter, gauge, seconds


_c, _g, _s = _of("streams", "stream")
_STREAMS = (
    _c("records", "Input records processed.", "stage"),
    _c("batches", "Input batches processed.", "stage"),
    _c("repeated", "Input records skipped as already processed.", "stage"),
    _c("gap_offsets", "Offsets that the log did not contain between two batches: records lost to retention.", "stage"),
    _c("outputs", "Output records sent.", "topic"),
    _c("dead_letters", "Dead letters delivered.", "stage", "reason"),
    _c("stage_events", "What the stages count.", "stage", "name"),
    _s("batch", "From a batch's arrival until its outputs are sent; unit: seconds.", "stage"),
    _s("checkpoint", "Writing a checkpoint; unit: seconds.", "stage"),
    _s("recovery", "Restoring a partition's state; unit: seconds.", "stage"),
    _s(
        "record_age",
        "From the Kafka timestamp of a batch's last record until it was processed; unit: seconds.",
        "stage",
    ),
    _g("position", "Next offset to process.", "topic", "partition"),
    _g("end", "End of the log as last seen.", "topic", "partition"),
    _g("saved", "Offset of the last checkpoint.", "topic", "partition"),
    _g("state_items", "Items of state held in memory.", "topic", "partition"),
    _c("saved_bytes", "State written by checkpoints; unit: bytes.", "stage"),
    _c("ticks", "TICK events written."),
    _c("rebalances", "Times partitions were assigned."),
    _c("ignored_state", "State records of former owners ignored."),
)
_POLICY = (
    Metric(
        "steersman_policy_version", "gauge", "Newest published version: rewards applied.", ("policy",), ("streams",)
    ),
    Metric(
        "steersman_policy_age_seconds",
        "gauge",
        "Since a new version of the policy was seen; unit: seconds.",
        ("policy",),
        ("streams",),
    ),
)
_c, _g, _s = _of("sink", "sink")
_SINK = (
    _c("rows", "Rows stored.", "table"),
    _c("inserts", "Inserts that ClickHouse took.", "table"),
    _c("rejected", "Records that cannot be stored, sent to the dead letters.", "table"),
    _c("skipped", "Records that are not meant to be stored.", "table"),
    _c("failed_attempts", "Inserts that failed and are tried again.", "table"),
    _c("halved", "Inserts that were cut in half because the server found them too large.", "table"),
    _c("refusals", "Failed inserts by ClickHouse's error code.", "table", "code"),
    _s("insert", "One insert, failed ones included; unit: seconds.", "table"),
    _g("waiting_records", "Records read and not stored yet.", "table"),
    _c(
        "folded_traces", "Settled traces added up to a row each, in the background; one with later events counts again."
    ),
    _c("fold_failures", "Rounds of that which failed; the next one does their work."),
    _g("blocked", "1 while a batch of the table waits for ClickHouse and its topic is not read.", "table"),
)
_c, _g, _s = _of("doors", "door")
_DOORS = (
    _c("requests", "Requests answered; of the topic, records taken.", "door", "status"),
    _s("request", "From a request's head until its answer; unit: seconds.", "door"),
    _c("bytes", "Bodies read, decompressed; unit: bytes.", "door"),
    _c("items", "Spans, log records and feedbacks: taken, or refused.", "door", "result"),
    _c("events", "Trace events that Kafka acknowledged.", "kind"),
    _c("refusals", "Requests and records refused, by what was wrong.", "door", "reason"),
    _c("left_out", "What spans had that an event could not hold, or must not.", "what"),
    _g("waiting_events", "Events handed to Kafka and not acknowledged yet."),
    _g("requests_in_flight", "Requests being answered."),
)
METRICS: Final[tuple[Metric, ...]] = (
    Metric("steersman_build_info", "gauge", "1, with the version as a label.", ("service", "version"), SERVICES),
    Metric(
        "steersman_consumer_lag_records",
        "gauge",
        "Records of an assigned partition that are not committed yet.",
        ("topic", "partition"),
        SERVICES,
    ),
    *_STREAMS,
    *_POLICY,
    *_SINK,
    *_DOORS,
)
"""All of them."""


class MetricSet:
    """The metrics of one service, in a registry of their own, beside those of the process (``process_*``).

    Parameters
    ----------
    service
        Whose.

    Attributes
    ----------
    registry
        The registry they are in.
    """

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._made: dict[str, Counter | Gauge | Histogram] = {}
        for metric in METRICS:
            if service in metric.services:
                self._made[metric.name] = _make(metric, self.registry)
        self.gauge("steersman_build_info").labels(service, __version__).set(1)

    def counter(self, name: str) -> Counter:
        """Return a counter by its name in `METRICS`; KeyError when there is none."""
        found = self._made[name]
        if not isinstance(found, Counter):
            raise KeyError(f"{name} is no counter")
        return found

    def gauge(self, name: str) -> Gauge:
        """Return a gauge by its name in `METRICS`; KeyError when there is none."""
        found = self._made[name]
        if not isinstance(found, Gauge):
            raise KeyError(f"{name} is no gauge")
        return found

    def histogram(self, name: str) -> Histogram:
        """Return a histogram by its name in `METRICS`; KeyError when there is none."""
        found = self._made[name]
        if not isinstance(found, Histogram):
            raise KeyError(f"{name} is no histogram")
        return found


def _make(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if metric.kind == "counter":
        return Counter(metric.name, metric.help, metric.labels, registry=registry)
    if metric.kind == "gauge":
        return Gauge(metric.name, metric.help, metric.labels, registry=registry)
    return Histogram(metric.name, metric.help, metric.labels, buckets=SECONDS, registry=registry)
