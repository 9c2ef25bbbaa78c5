"""The trace stage by columns does what it does record by record: every output, dead letter, count and state byte."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from columns import avro, block, cursor, text
from learners.detector_settings import DetectorSettings
from steersman.dead_letter import read_failure
from steersman.prices import PriceTable
from steersman.topics import Topics
from streams import framed, text_columns, trace_pass, trace_rows, window_rows
from streams.dead_letters import DlqLimit
from streams.detect import sign_rows
from streams.edges import Step, make_codecs
from streams.metrics import Metrics
from streams.outputs import OutputRecord
from streams.record_batch import RecordBatch
from streams.runner import StageRunner
from streams.slot import Slot
from streams.trace_edge import TraceEdge
from streams.trace_stage import StageSettings, TraceStage
from streams.trace_state import SpanRecord
from streams.watermark import PartitionClock
from tests.streams.raw_logs import CODEC, Raw, batch, raw_log
from tests.streams.trace_events import POLICIES, S

TOPICS = Topics("t")
CODECS = make_codecs(("reward", "rollup", "alert", "ledger")) | {"trace_event": CODEC}
SETTINGS = [
    StageSettings(lateness_us=5 * S, horizon_us=40 * S, emit_us=3 * S),
    StageSettings(window_us=2 * S, lateness_us=S, horizon_us=2 * S, max_events_per_trace=6, max_keys_per_window=4),
    StageSettings(),
]
PRICES = PriceTable.parse("""
[[model]]
provider = ""
names = ["model-large"]
from = 2020-01-01
input = 1.5
cached_input = 0.25
output = 3
[[tool]]
provider = ""
names = ["search"]
from = 2026-09-22
per_call = 0.01
""")
DETECTORS = DetectorSettings.model_validate(
    {
        "alerts_per_minute": 5, "tool_loop": {"repeats": 2, "most": 3}, "ping_pong": {"switches": 2},
        "retry_storm": {"failures": 2}, "runaway": {"cost_micro_usd": 200_000, "depth": 2},
        "context_overflow": {"full": 0.97, "peak": 0.8, "drop": 0.3}, "plausible_but_wrong": {"below": 0.6},
    }
)  # fmt: skip
_METRICS = Metrics()
_NEVER = 1 << 30


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Gaps in the log are errors to the runner, and here there are many."""
    caplog.set_level(logging.CRITICAL, "steersman.streams")


class Side:
    """A stage as the runner drives it, and all that came of it."""

    def __init__(self, settings: StageSettings, columns_from: int) -> None:
        self._settings, self._columns_from = settings, columns_from
        self.outputs: dict[str, list[Any]] = {}  # by topic: how those of several mix depends on the cuts
        self.counters: Counter[str] = Counter()
        self.dumps: list[dict[str, bytes | None]] = []
        self._runner = StageRunner(
            "trace", "t", make=self._make, codec=CODEC, outputs=None, store=None, metrics=_METRICS,  # type: ignore[arg-type]
            dead_letter_topic="dead", limit=DlqLimit(max_ratio=1.0, max_consecutive=1 << 30), acknowledge=lambda batch: None,
            checkpoint_s=1.0, checkpoint_records=1,
        )  # fmt: skip
        self.slot = self._fresh(0)

    def _make(self, partition: int) -> TraceEdge:
        stage = TraceStage(POLICIES, partition, self._settings, PRICES, DETECTORS)
        return TraceEdge(stage, TOPICS, CODECS, columns_from=self._columns_from)

    def _fresh(self, position: int) -> Slot:
        return Slot(3, 1, self._make(3), position, position, 0.0)

    def process(self, taken: RecordBatch) -> None:
        start = self._runner._start(self.slot, taken)
        if start < len(taken):
            self._keep(self._runner._process(self.slot, taken, start))
            self.slot.position = taken.last + 1

    def _keep(self, step: Step) -> None:
        self._deliver(step.records)
        self.counters += step.counters

    def _deliver(self, records: Iterable[OutputRecord]) -> None:
        for record in records:
            self.outputs.setdefault(record.topic, []).append(_comparable(record))

    def checkpoint(self) -> None:
        self._deliver(self.slot.stage.audit())
        self.dumps.append(dict(self.slot.stage.dump_dirty()))

    def restart(self, torn: int | None) -> None:
        """Go on from the last checkpoint; `torn` items into it if it was cut off there, or from the beginning."""
        saved: dict[str, bytes] = {}
        for number, dump in enumerate(self.dumps):
            last = number == len(self.dumps) - 1
            for key, value in list(dump.items())[: torn if last else None]:
                if value is None:
                    saved.pop(key, None)
                else:
                    saved[key] = value
        stage = TraceStage(POLICIES, 3, self._settings, PRICES, DETECTORS)
        stage.restore(saved.items())
        self.slot = self._fresh(stage.next_offset)
        self.slot.stage.restore(saved.items())


def _comparable(record: OutputRecord) -> Any:
    if record.topic != "dead":
        return record
    why = read_failure(record.headers)
    # Where in the code it was found out is not part of the outcome.
    return record.key, record.value, record.timestamp_ms, replace(why, stacktrace="")


def ways(rng: random.Random, log: list[Raw], settings: StageSettings) -> tuple[Side, Side]:
    """Both ways through a log, cut differently, with checkpoints and restarts at the same places."""
    gap = rng.choice([1, 3])

    def offset(index: int) -> int:
        return 5 + gap * index

    sides = Side(settings, _NEVER), Side(settings, 1)
    at = 0
    while at < len(log):
        end = min(len(log), at + rng.choice([1, 30, 200, len(log)]))
        for side in sides:
            for first, last in _cuts(rng, at, end):
                side.process(batch(log, first, last, offset))
            side.checkpoint()
        at = end
        if rng.random() < 0.3:
            torn = rng.choice([None, rng.randrange(1 + len(sides[0].dumps[-1]))])
            for side in sides:
                side.restart(torn)
            position = sides[0].slot.position
            at = max(0, -(-(position - 5) // gap))
            assert sides[1].slot.position == position
    return sides


def _cuts(rng: random.Random, first: int, end: int) -> list[tuple[int, int]]:
    places = sorted({first, end, *(rng.randrange(first, end + 1) for _ in range(rng.randrange(5)))})
    return list(itertools.pairwise(places))


def differs(seed: int) -> str | None:
    """What differs between the two ways through the log of a seed; None for nothing."""
    rng = random.Random(seed)
    log = raw_log(rng, rng.choice([5, 60, 300]), rng.choice([0.0, 0.02, 0.3, 1.0]))
    record, column = ways(rng, log, rng.choice(SETTINGS))
    if record.outputs != column.outputs:
        return f"outputs {[t for t in record.outputs if record.outputs[t] != column.outputs.get(t)]}"
    if record.counters != column.counters:
        return f"counters {record.counters - column.counters} {column.counters - record.counters}"
    if [list(dump.items()) for dump in record.dumps] != [list(dump.items()) for dump in column.dumps]:
        return "state"
    return None


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 40))
def test_columns_do_what_records_do(seed: int) -> None:
    assert differs(seed) is None


def _any_union(at: Any) -> Any:
    """Whatever is not 0 has a value."""
    index = at.bytes[at.pos]
    at.move(slice(None), at.pos + 1)
    return (index != 0) & at.sure


def _all_plausible(clock: Any, ts: Any, record_ts: Any) -> Any:
    return np.ones(len(ts), np.bool_)


def _bytes_left_over(reader: Any, values: Any, starts: Any) -> Any:
    at = cursor.Cursor(values, starts, len(reader._steps))
    columns = {name: step(at) for name, step in reader._steps}
    return block.Block(at.raw, at.rest, at.sure, columns)


def _no_last_bucket(sums: Any, added: Any, durations: Any, bucket: Any, slot: Any) -> None:
    bucket[-1] = -1
    _SETTLE(sums, added, durations, bucket, slot)


def _settled_again_and_again(sums: Any) -> None:
    sums._take()
    if sums._put_off:
        _SETTLE(sums, *map(np.concatenate, zip(*sums._put_off, strict=True)))


_SETTLE = window_rows.RowSums._settle
MUTANTS: list[tuple[Any, str, Any]] = [
    (avro, "_union", _any_union),
    (text, "_is_utf8", lambda raw: True),
    (avro.ColumnReader, "read", _bytes_left_over),
    (PartitionClock, "plausible", _all_plausible),
    (trace_rows, "NAMES", ()),
    (trace_rows, "AMOUNTS", ()),
    (framed, "MAX_ITEMS", 1 << 30),
    (text_columns.HexIds, "named", property(lambda ids: ids.valid)),
    (trace_pass, "validate_kind", lambda event, policies: policies.get(event["tenant"], event.get("policy") or "")),
    (window_rows.RowSums, "_settle", _no_last_bucket),
    (window_rows.RowSums, "settle", _settled_again_and_again),
    (trace_rows, "minutes_of", np.zeros_like),
    (trace_rows, "PRICE_FIELDS", ("kind", "ts", "operation", "input_tokens", "output_tokens")),
    (trace_rows, "PRICED", frozenset({"MODEL_CALL", "TOOL_CALL", "RETRIEVAL"})),
    (trace_rows, "hash64_all", lambda texts: np.array([hash(text) % 1000 for text in texts], np.uint64)),
    (sign_rows, "_is", lambda column, symbols: np.array([symbol != "OK" and symbol in symbols for symbol in column.symbols])),
    (sign_rows, "_has", lambda column, rows: np.ones(len(rows), np.bool_)),
    (trace_rows, "sign_rows", lambda block, rows: sign_rows.SignRows(*[[v] * len(rows) for v in (0, None, None)])),
    (SpanRecord, "_make", lambda values: SpanRecord(*[value or 0 for value in values])),
]  # fmt: skip


@pytest.mark.parametrize(("where", "name", "broken"), MUTANTS, ids=[name for _, name, _ in MUTANTS])
def test_a_broken_part_is_noticed(where: Any, name: str, broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, name, broken)
    assert any(_breaks(seed) for seed in range(300))


def _breaks(seed: int) -> bool:
    try:
        return differs(seed) is not None
    except Exception:
        return True
