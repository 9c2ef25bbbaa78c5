"""What an event costs the agent's thread, ours and OpenTelemetry's. Runs in the learners' environment: see `benchmarks.environments`."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks.measure import Figure, percentiles_us
from benchmarks.memory_producer import memory_sender
from steersman import Kind, Tracer

_CALLS = 5000


def figures() -> Iterator[Figure]:
    """A span with two fields, begun and ended inside another: one at a time, and back to back.

    Ours is encoded and acknowledged by a producer in memory, OpenTelemetry's is kept by an exporter in memory; both on
    a thread of their own. One at a time, that thread has nothing left to do when the next span begins.
    """
    tracer = Tracer("bench", sink=memory_sender())
    with tracer.span(Kind.AGENT, end=False):

        def ours() -> None:
            with tracer.span(Kind.TOOL_CALL, operation="search") as span:
                span.set(cost_micro_usd=120, input_tokens=10)

        yield from _cost("Tracer.span", ours, lambda: tracer.flush(30))
    tracer.close()

    exporter = InMemorySpanExporter()
    processor = BatchSpanProcessor(exporter, max_queue_size=4 * _CALLS)
    provider = TracerProvider()
    provider.add_span_processor(processor)
    theirs_tracer = provider.get_tracer("bench")

    def settle() -> None:
        processor.force_flush()
        exporter.clear()

    with theirs_tracer.start_as_current_span("agent"):

        def theirs() -> None:
            with theirs_tracer.start_as_current_span("search") as span:
                span.set_attribute("cost_micro_usd", 120)
                span.set_attribute("input_tokens", 10)

        yield from _cost(f"opentelemetry-sdk {version('opentelemetry-sdk')} span", theirs, settle)
    provider.shutdown()


def _cost(system: str, span: Callable[[], None], settle: Callable[[], object]) -> Iterator[Figure]:
    yield from percentiles_us(system, "one at a time", span, calls=_CALLS, between=settle)
    settle()
    wall, cpu = [], []
    for _ in range(5):
        started, cpu_started = time.perf_counter_ns(), time.thread_time_ns()
        for _ in range(_CALLS):
            span()
        cpu.append((time.thread_time_ns() - cpu_started) / _CALLS / 1e3)
        wall.append((time.perf_counter_ns() - started) / _CALLS / 1e3)
        settle()
    middle, least, most = (round(value, 3) for value in (statistics.median(wall), min(wall), max(wall)))
    yield Figure(system, "back to back, mean", "us", middle, least, most, len(wall), round(statistics.median(cpu), 3))


if __name__ == "__main__":
    for figure in figures():
        print(json.dumps(asdict(figure)), flush=True)
