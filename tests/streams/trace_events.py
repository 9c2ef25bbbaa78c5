"""Trace events and policies for the tests of the trace stage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from learners.policies import Policies
from learners.spec import PolicySpec, RewardSpec, Scales, Weights
from steersman import contracts
from steersman.arms import ArmSpace
from steersman.features import FeatureSpec
from streams.trace_stage import StageOutput, StageSettings, TraceStage

T0 = 1_790_000_000_000_000
"""A moment in September 2026, the start of a second; unit: microseconds since 1970-01-01 UTC."""
MS = 1000
S = 1_000_000
TRACE = "a" * 32

ARMS = ArmSpace({"model": ["small", "large"], "top_k": [4, 8]})
ARM = ARMS.labels[0]
WEIGHTS = Weights(quality=1.0, cost=0.5, latency=0.25, failures=0.1)
SCALES = Scales(cost_micro_usd=1000.0, latency_us=1e6)


NULLABLE = tuple(
    field["name"] for field in contracts.schema("trace_event")["fields"] if isinstance(field["type"], list)
)
"""Fields that are null unless set."""


def policy(name: str = "p", **reward: Any) -> PolicySpec:
    """A policy of four arms and no features but the constant."""
    spec = RewardSpec(weights=WEIGHTS, scales=SCALES, **reward)
    return PolicySpec("default", name, ARMS, ARM, FeatureSpec(), spec)


POLICIES = Policies.of(
    policy("p", window_s=60, default=0.25),
    policy("nodefault", window_s=60),
    policy("last", window_s=60, aggregation="last"),
    policy("max", window_s=60, aggregation="max"),
    policy("mean", window_s=60, aggregation="mean"),
    policy("whole", window_s=60, credit="trace"),
    policy("even", window_s=60, quality_credit="shared"),
    policy("triple", window_s=60, quality_credit="shared", share=3.0),
    policy("against", window_s=60, quality_credit="difference", peers=("even", "p", "against")),
)


def hex_id(text: str, digits: int) -> str:
    """Stable id of so many hex digits."""
    return hashlib.blake2b(text.encode(), digest_size=digits // 2).hexdigest()


def span_id(name: str) -> str:
    """Span id of a named span."""
    return hex_id(f"span {name}", 16)


def event(kind: str, ts: int, name: str = "", *, trace: str = TRACE, **fields: Any) -> dict[str, Any]:
    """A decoded trace event with all the fields of the schema; `name` makes its span and event ids."""
    record: dict[str, Any] = {
        "event_id": hex_id(f"{trace} {kind} {name} {ts} {sorted(fields.items())}", 32),
        "tenant": "default",
        "trace_id": trace,
        "span_id": span_id(name or kind),
        "agent": "agent",
        "kind": kind,
        "ts": ts,
        "status": "OK",
        "features": [],
        "eligible": [],
        "truncated": False,
    }
    record.update(dict.fromkeys(NULLABLE))
    if kind == "DECISION":
        record.update(
            decision_id=f"{trace}-{record['span_id']}",
            policy="p",
            policy_epoch=1,
            policy_version=7,
            arm=ARM,
            propensity=0.5,
            explored=False,
            mode="LIVE",
            features=[1.0],
        )
    if kind == "FEEDBACK":
        record.update(metric="quality")
    record.update(fields)
    return record


def decision(ts: int, name: str = "decision", **fields: Any) -> dict[str, Any]:
    """A decision event."""
    return event("DECISION", ts, name, **fields)


def feedback(ts: int, value: float | None, name: str = "feedback", **fields: Any) -> dict[str, Any]:
    """A feedback event of the metric `quality`."""
    return event("FEEDBACK", ts, name, value=value, **fields)


def tick(ts: int) -> dict[str, Any]:
    """A tick."""
    return event("TICK", ts, "tick")


def feed(stage: TraceStage, events: Iterable[Mapping[str, Any]], record_ts: int | None = None) -> StageOutput:
    """Process events at the next offsets, each record stamped with its event time unless said otherwise."""
    first = stage.next_offset
    return stage.process(
        [(first + i, one["ts"] if record_ts is None else record_ts, one) for i, one in enumerate(events)]
    )


def run(
    events: Sequence[Mapping[str, Any]], *, settle_at: int | None = None, **settings: Any
) -> tuple[TraceStage, StageOutput]:
    """Feed events to a new stage, and then a tick at `settle_at`."""
    stage = TraceStage(POLICIES, 3, StageSettings(**settings))
    out = feed(stage, events)
    if settle_at is not None:
        then = feed(stage, [tick(settle_at)])
        out.rewards += then.rewards
        out.rollups += then.rollups
        out.counters += then.counters
    return stage, out


def state(stage: TraceStage, saved: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """The whole state of a stage: what was saved before, changed by what it dumps."""
    held = dict(saved or {})
    for key, value in stage.dump_dirty().items():
        if value is None:
            held.pop(key, None)
        else:
            held[key] = value
    return held
