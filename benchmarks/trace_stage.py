"""What an event costs the trace stage, record by record and by columns; with many traces open: `benchmarks.open_traces`."""

from __future__ import annotations

import gc
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.avro_container import zigzag
from benchmarks.measure import Figure
from learners.policies import Policies
from learners.spec import PolicySpec, RewardSpec, Scales, Weights
from steersman.arms import ArmSpace
from steersman.codec import Codec
from steersman.features import FeatureSpec
from streams.record_batch import RecordBatch
from streams.trace_stage import StageSettings, TraceStage
from streams.trace_state import to_json

PAYLOAD = (
    "batches of 2,000 records of trace_event.avsc, 7 kinds, 1,000 events per second of event time; traces of one decision, "
    "spans, an end and, later, feedback; CPU time of decoding, join, rollups and ledger, without Kafka and the encoding of "
    "outputs"
)
_BATCH = 2000
_ACTIVE = 200
_FIRST = 1  # offset
_T0 = 1_790_000_000_000_000
EVENT_US = 1000
_CODEC = Codec("trace_event")
_ARMS = ArmSpace({"model": ["small", "large"]})
POLICIES = Policies.of(
    PolicySpec(
        "default", "bench", _ARMS, _ARMS.labels[0], FeatureSpec(),
        RewardSpec(weights=Weights(cost=0.1, latency=0.1), scales=Scales(), window_s=86_400.0),
    )
)  # fmt: skip
SETTINGS = StageSettings(lateness_us=30_000_000, horizon_us=60_000_000)
_EVENT, _TRACE, _SPAN = b"e" * 32, b"d" * 32, b"c" * 16


class Traffic:
    """An endless log: traces that are active side by side, then wait for their feedback.

    Parameters
    ----------
    spans
        Spans of work of each trace.
    most
        Traces that wait for feedback at a time.
    waiting
        Traces that wait already.
    """

    def __init__(self, spans: int, most: int, waiting: Iterable[bytes] = ()) -> None:
        self._rng = random.Random(1)  # noqa: S311 - traffic, not secrets
        self._spans = spans
        self._most = most
        self.waiting = deque(waiting)
        self._active: list[tuple[bytes, Iterator[bytes]]] = []
        self._made = _FIRST
        call = {"agent": "planner", "operation": "model-large", "duration_us": 150_000, "cost_micro_usd": 1234}
        tokens = {"input_tokens": 1500, "output_tokens": 220, "cached_input_tokens": 700}
        self._works = [
            _template("MODEL_CALL", **call, **tokens, context_tokens=1500, context_limit=128_000),
            _template("TOOL_CALL", agent="planner", operation="search", duration_us=80_000, cost_micro_usd=20),
            _template("RETRIEVAL", agent="searcher", operation="index", duration_us=30_000),
            _template("REASONING", **call, output_tokens=300),
        ]
        self._decision = _template(
            "DECISION", agent="planner", policy="bench", arm=_ARMS.labels[1], propensity=0.5, explored=False, mode="LIVE",
            features=[1.0], decision_id=f"{_TRACE.decode()}-{_SPAN.decode()}",
        )  # fmt: skip
        self._end = _template("END", agent="planner")
        self._feedback = _template("FEEDBACK", metric="quality", value=0.75)

    def batch(self) -> RecordBatch:
        """Return the next records."""
        first = self._made
        values: list[bytes | None] = [self._next() for _ in range(_BATCH)]
        stamps = [(_T0 + (first + i) * EVENT_US) // 1000 for i in range(_BATCH)]
        offsets = list(range(first, first + _BATCH))
        keys: list[bytes | None] = [b"k"] * _BATCH
        return RecordBatch("t", 0, 1, 0, first, offsets[-1], offsets, values, keys, [()] * _BATCH, stamps)

    def _next(self) -> bytes:
        rng, active = self._rng, self._active
        if len(self.waiting) > self._most:
            return self._event(self._feedback, self.waiting.popleft())
        while len(active) < _ACTIVE:
            active.append((b"%032x" % (rng.getrandbits(128) | 1), self._templates()))
        at = rng.randrange(_ACTIVE)
        trace, templates = active[at]
        template = next(templates)
        if template is self._end:
            active[at] = active[-1]
            active.pop()
            self.waiting.append(trace)
        return self._event(template, trace)

    def _templates(self) -> Iterator[bytes]:
        yield self._decision
        yield from self._rng.choices(self._works, k=self._spans)
        yield self._end

    def _event(self, template: bytes, trace: bytes) -> bytes:
        ts = zigzag(_T0 + self._made * EVENT_US)
        self._made += 1
        event_id, span = b"%032x" % self._rng.getrandbits(128), b"%016x" % (self._rng.getrandbits(64) | 1)
        filled = template.replace(_EVENT, event_id).replace(_TRACE, trace).replace(_SPAN, span)
        return filled.replace(zigzag(_T0), ts)


def _template(kind: str, **fields: Any) -> bytes:
    ids = {"event_id": _EVENT.decode(), "trace_id": _TRACE.decode(), "span_id": _SPAN.decode()}
    return _CODEC.encode({**ids, "tenant": "default", "kind": kind, "ts": _T0, "parent_span_id": None, **fields})


def by_records(stage: TraceStage, batch: RecordBatch) -> None:
    """Process a batch as records."""
    decode = _CODEC.decode
    stage.process(
        [
            (offset, stamp * 1000, decode(value, headers))
            for offset, stamp, value, headers in zip(
                batch.offsets, batch.timestamps, batch.values, batch.headers, strict=True
            )
        ]
    )


def by_columns(stage: TraceStage, batch: RecordBatch) -> None:
    """Process a batch by columns."""
    stage.process_rows(stage.rows(batch, 0, _CODEC))


Process = Callable[[TraceStage, RecordBatch], None]


def cpu_us(process: Process, batches: list[RecordBatch], stage: TraceStage) -> list[float]:
    """CPU time per event of each batch; unit: microseconds."""
    costs = []
    for batch in batches:
        started = time.process_time()
        process(stage, batch)
        costs.append((time.process_time() - started) / len(batch) * 1e6)
    return costs


def figure(system: str, metric: str, unit: str, values: list[float]) -> Figure:
    return Figure(
        system, metric, unit, round(median(values), 3), round(min(values), 3), round(max(values), 3), len(values)
    )


def figures() -> Iterator[Figure]:
    """Both ways over the same traffic, and the memory of traces that are closed."""
    gc.freeze()  # as a worker does
    for name, spans in (("6 events a trace", 3), ("23 events a trace", 20)):
        traffic = Traffic(spans, 500)
        batches = [traffic.batch() for _ in range(20)]
        costs: dict[str, list[float]] = {"records": [], "columns": []}
        for _ in range(3):  # side by side: the speed of the machine drifts
            for way, process in (("records", by_records), ("columns", by_columns)):
                costs[way].append(
                    fmean(cpu_us(process, batches, TraceStage(POLICIES, 0, SETTINGS, detectors=POLICIES.detectors)))
                )
        for way, values in costs.items():
            yield figure(f"{way}, {name}", "CPU per event", "us", values)
        ratios = [slow / fast for slow, fast in zip(costs["records"], costs["columns"], strict=True)]
        yield figure(f"records / columns, {name}", "CPU per event", "times", ratios)
    yield _remembered(300_000)


def _remembered(count: int) -> Figure:
    """Memory of so many closed traces of ten events."""
    rng = random.Random(1)  # noqa: S311 - traffic, not secrets
    forms = {
        f"trace:{rng.getrandbits(128) | 1:032x}:default": to_json(
            ["closed", 0, _T0, sorted(rng.getrandbits(64) for _ in range(10))]
        )
        for _ in range(count)
    }
    stage = TraceStage(POLICIES, 0, SETTINGS, detectors=POLICIES.detectors)
    before = resident()
    stage.restore(forms.items())
    grown = resident() - before
    return figure(f"columns, {count:,} closed traces remembered", "memory per trace", "bytes", [grown / count])


def resident() -> int:
    """Memory of this process; unit: bytes."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096
