"""What deciding and tracing cost the caller's thread: little memory, and none of the work of sending."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steersman.arms import ArmSpace
from steersman.events import Kind
from steersman.features import Categorical, FeatureSpec, Numeric
from steersman.held import StaticPolicies
from steersman.layout import make_layout
from steersman.router import Router
from steersman.sender import Sender
from steersman.snapshot import COVARIANCE, HEADS, PolicySnapshot
from steersman.tracer import Tracer

Make = Callable[..., PolicySnapshot]
seen: list[tuple[str, threading.Thread]] = []


class NoSink:
    """Takes every event and keeps none, so that only what the caller's side needs is measured."""

    def offer(self, record: dict[str, Any]) -> bool:
        return True

    def flush(self, timeout_s: float) -> int:
        return 0

    def close(self, timeout_s: float) -> int:
        return 0

    def stats(self) -> dict[str, Any]:
        return {}


class MemoryProducer:
    """Acknowledges every record at the next poll."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.reports: list[Callable[[Any, Any], None]] = []

    def produce(self, topic: str, *, value: bytes, key: bytes, on_delivery: Callable[[Any, Any], None]) -> None:
        seen.append(("produce", threading.current_thread()))
        self.reports.append(on_delivery)

    def poll(self, timeout_s: float) -> int:
        reports, self.reports = self.reports, []
        for report in reports:
            report(None, None)
        return len(reports)

    def purge(self) -> None:
        pass

    def __len__(self) -> int:
        return len(self.reports)


class Watched(float):
    """A number that notes which thread asks for its value."""

    def __float__(self) -> float:
        seen.append(("value", threading.current_thread()))
        return 0.25


class WatchingEncoder:
    def encode(self, record: Mapping[str, Any]) -> bytes:
        seen.append(("encode", threading.current_thread()))
        return b"x"


def peak_bytes(call: Callable[[], object]) -> int:
    """Most memory that a call holds while it runs: the least of 30 tries, since other threads allocate, too."""
    for _ in range(5):
        call()
    least = 1 << 40
    tracemalloc.start()
    try:
        for _ in range(30):
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            call()
            least = min(least, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return least


def test_redaction_encoding_and_sending_are_the_senders_work(make_snapshot: Make) -> None:
    seen.clear()
    sender = Sender("127.0.0.1:1", "t", codec=WatchingEncoder(), make_producer=MemoryProducer)
    tracer = Tracer("agent", sink=sender)
    router = Router(StaticPolicies([make_snapshot()]), tracer, max_age_s=1e12)
    with tracer.span(Kind.TOOL_CALL, operation="search") as span:
        span.set(value=Watched(1.0), comment="as it is", attributes={"a": [1, 2]})
        router.choose("research/retrieval", {"complexity": 0.5, "length": 2.0})
    assert tracer.close(20) == 0
    assert {what for what, _ in seen} == {"value", "encode", "produce"}
    assert {thread.name for _, thread in seen} == {"steersman-sender"}
    assert tracer.stats()["sent"] == 3  # the decision, the span, the end of the trace


@pytest.mark.parametrize(
    ("knobs", "dim", "most"),
    [
        ({"arm": list(range(8))}, 16, 8_000),
        ({"a": [1, 2, 3], "b": [1, 2, 3], "c": [1, 2, 3], "d": [1, 2, 3], "e": [1, 2]}, 32, 32_000),
    ],
    ids=["8 arms, d=16", "162 joint arms, d=32"],
)
def test_a_decision_needs_little_memory(make_snapshot: Make, knobs: dict[str, list[int]], dim: int, most: int) -> None:
    arms = ArmSpace(knobs)
    numbers = tuple(Numeric(name=f"x{i}") for i in range(dim - 3))
    features = FeatureSpec(features=(*numbers, Categorical(name="c", values=("x", "y"))))
    layout = make_layout(arms, features)
    rng = np.random.default_rng(3)
    tensors = {f"weights.{head}": rng.normal(size=layout.size).astype(np.float32) for head in HEADS}
    tensors[COVARIANCE] = np.eye(layout.arm_size, dtype=np.float32)[np.tril_indices(layout.arm_size)]
    snapshot = replace(make_snapshot(), arms=arms, features=features, baseline=arms.labels[0], tensors=tensors)
    router = Router(StaticPolicies([snapshot]), Tracer("agent", sink=NoSink()), seed=0, max_age_s=1e12)
    context = {f"x{i}": 0.1 * i for i in range(dim - 3)} | {"c": "y"}
    assert router.choose(snapshot.policy, context).reason is None
    assert peak_bytes(lambda: router.choose(snapshot.policy, context)) < most


def test_a_span_needs_little_memory() -> None:
    tracer = Tracer("agent", sink=NoSink())

    def span() -> None:
        with tracer.span(Kind.TOOL_CALL, operation="search") as made:
            made.set(cost_micro_usd=120, input_tokens=10)

    assert peak_bytes(span) < 4_000
