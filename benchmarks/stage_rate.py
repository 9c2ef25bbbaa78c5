"""Rewards per second of CPU of a learning stage that always has work."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.measure import Figure
from steersman.codec import Codec
from streams.learning_stage import LearningStage

Records = Sequence[tuple[int, int, Mapping[str, Any]]]

_BATCH = 500
_BUSY_S = 3.5
"""Time that the stage works per repeat: one checkpoint and several snapshots fall into it."""
_CHECKPOINT_S = 3.0
_REWARDS_PER_S = 50_000
"""Rate of the records' Kafka timestamps: how many minutes the ledger has to keep."""


def rate(system: str, cpu_us: Callable[[], float], repeats: int = 3) -> Figure:
    """Rewards per second of CPU on one core."""
    costs = [cpu_us() for _ in range(repeats)]
    rates = [round(1e6 / cost) for cost in costs]
    middle = statistics.median(costs)
    return Figure(
        system,
        "rewards per CPU second",
        "1/s",
        statistics.median(rates),
        min(rates),
        max(rates),
        repeats,
        round(middle, 3),
    )


def stage_cpu_us(make: Callable[[], LearningStage], rewards: list[dict[str, Any]], *, decode: bool) -> float:
    """CPU time per reward of a stage that always has work, by its own clock: how long it has been at work."""
    stage = make()
    stage.published({})
    codec = Codec("reward")
    busy_s = checkpointed_s = 0.0
    n = 0
    while busy_s < _BUSY_S:
        for start in range(0, len(rewards), _BATCH):
            batch = _next_records(rewards[start : start + _BATCH], n)
            bodies = [codec.encode(reward) for _, _, reward in batch] if decode else []
            now_us = int(busy_s * 1e6)
            started = time.process_time()
            if decode:
                batch = [(offset, ts, codec.decode(body)) for (offset, ts, _), body in zip(batch, bodies, strict=True)]
            stage.process(batch, now_us=now_us, monotonic_us=now_us)
            if busy_s - checkpointed_s >= _CHECKPOINT_S:
                checkpointed_s = busy_s
                stage.audit()
                stage.dump_dirty()
            busy_s += time.process_time() - started
            n += len(batch)
    return busy_s / n * 1e6


def _next_records(rewards: list[dict[str, Any]], n: int) -> Records:
    """The rewards as the next ones of their source partition and of the log."""
    for i, reward in enumerate(rewards, n):
        reward["source_offset"] = i
    start_us = 1_700_000_000_000_000
    return [(i, start_us + i * 1_000_000 // _REWARDS_PER_S, reward) for i, reward in enumerate(rewards, n)]
