"""What an event costs the trace stage with 1,000 to 1,000,000 traces open: side by side, for the machine drifts."""

from __future__ import annotations

import gc
import multiprocessing
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from statistics import fmean
from typing import NamedTuple

from benchmarks.measure import Figure
from benchmarks.trace_stage import EVENT_US, POLICIES, SETTINGS, Traffic, by_columns, cpu_us, figure, resident
from streams.trace_stage import TraceStage

WAITING = (1_000, 10_000, 100_000, 1_000_000)
REPEATS = 9
_BATCHES = 10
_COLLECT = "collect"


class Cost(NamedTuple):
    """CPU time per event; unit: microseconds."""

    event: float
    dump: float


def figures() -> Iterator[Figure]:
    """Cost of an event and of the dump of what it changed, and how many times that with the fewest traces open it is.

    Each number of traces is held by a process of its own; they take turns, ten batches at a time.
    """
    with ExitStack() as stack:
        stages = {waiting: stack.enter_context(_Held(waiting)) for waiting in WAITING}
        costs: dict[int, list[Cost]] = {waiting: [] for waiting in stages}
        for turn in range(1 + REPEATS):
            for waiting, stage in stages.items():
                cost = stage.round()
                if turn:  # the first one fills caches
                    costs[waiting].append(cost)
        for waiting, stage in stages.items():
            system = f"columns, {waiting:,} traces wait"
            events = [cost.event for cost in costs[waiting]]
            yield figure(system, "CPU per event", "us", events)
            if waiting > WAITING[0]:
                fewest = [cost.event for cost in costs[WAITING[0]]]
                ratios = [many / few for many, few in zip(events, fewest, strict=True)]
                yield figure(f"{system} / {WAITING[0]:,}", "CPU per event", "times", ratios)
            yield figure(system, "dump, CPU per event", "us", [cost.dump for cost in costs[waiting]])
            if waiting >= 100_000:  # below, it fits what the allocator held already
                yield figure(system, "memory per trace", "bytes", [stage.grown / waiting])
            yield figure(system, "full garbage collection", "ms", [stage.collect_ms()])


class _Held:
    """A stage with so many traces waiting, in a process of its own."""

    def __init__(self, waiting: int) -> None:
        self._waiting = waiting

    def __enter__(self) -> _Held:
        context = multiprocessing.get_context("spawn")  # no memory of ours that could be shared and later copied
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._waiting), daemon=True)
        self._process.start()
        theirs.close()
        self.grown = self._answer()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe.close()
        self._process.join()

    def round(self) -> Cost:
        """Cost of the next batches."""
        self._pipe.send("")
        return Cost(*self._pipe.recv())

    def collect_ms(self) -> float:
        """CPU time of a full collection of garbage; unit: milliseconds."""
        self._pipe.send(_COLLECT)
        return self._answer()

    def _answer(self) -> float:
        return float(self._pipe.recv())


def _serve(pipe: Connection, waiting: int) -> None:
    """Hold the traces, say how much memory they take, then answer until the other end is closed."""
    gc.freeze()  # as a worker does
    held = _states(waiting)
    ids = [key.split(":")[1].encode() for key in held]
    gc.collect()
    stage = TraceStage(POLICIES, 0, SETTINGS, detectors=POLICIES.detectors)
    before = resident()
    stage.restore(held.items())
    pipe.send(resident() - before)
    del held
    traffic = Traffic(3, waiting, ids)
    try:
        while True:
            pipe.send(_collect_ms() if pipe.recv() == _COLLECT else _round(stage, traffic))
    except EOFError:
        return


def _round(stage: TraceStage, traffic: Traffic) -> Cost:
    batches = [traffic.batch() for _ in range(_BATCHES)]
    # Means, not medians: the cyclic garbage collector takes its time in few of the batches.
    event = fmean(cpu_us(by_columns, batches, stage))
    started = time.process_time()
    stage.dump_dirty()
    return Cost(event, (time.process_time() - started) / sum(map(len, batches)) * 1e6)


def _collect_ms() -> float:
    started = time.process_time()
    gc.collect()
    return (time.process_time() - started) * 1e3


def _states(count: int) -> dict[str, bytes]:
    """State of so many traces that have ended and wait for feedback, as a checkpoint holds it."""
    traffic, stage = Traffic(3, 1), TraceStage(POLICIES, 0, SETTINGS, detectors=POLICIES.detectors)
    while not traffic.waiting:
        by_columns(stage, traffic.batch())
    trace = traffic.waiting[0].decode()
    form = stage.dump_dirty()[f"trace:{trace}:default"]
    if form is None:
        raise RuntimeError("a trace that waits is not among what has changed")
    form = re.sub(rb'^\["open",\d+', b'["open",0', form)
    traces = {}
    for number in range(count):
        other = f"{number + 1:032x}"
        earlier = 6 * EVENT_US * number + 60_000_000

        def shift(time_us: re.Match[bytes], by: int = earlier) -> bytes:
            return b"%d" % (int(time_us[0]) - by)

        moved = re.sub(rb"\b17900000\d{8}\b", shift, form)
        traces[f"trace:{other}:default"] = moved.replace(trace.encode(), other.encode())
    return traces
