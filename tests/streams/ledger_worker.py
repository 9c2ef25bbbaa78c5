"""A real worker around a stage of known outcome, as a process of its own to be killed at will.

For each event the stage says where the event was, how many came before it, and their sum: so any loss, repetition or
state that does not fit its position shows in the outputs' bytes.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from learners.policies import Policies
from steersman.errors import InvalidRecord
from streams.dead_letters import DeadLetterStage
from streams.edges import Event, Step
from streams.outputs import OutputRecord
from streams.record_batch import RecordBatch
from streams.settings import StreamSettings
from streams.transport import Consumer
from streams.worker import run_worker


class Ledger:
    """Running count and sum of a partition."""

    def __init__(self, topic: str, partition: int, ticks: bool = False) -> None:
        self.topic = topic
        self.partition = partition
        self.ticks = ticks
        self.count = 0
        self.total = 0
        self.applied = -1
        self.dirty = False

    def process_batch(self, batch: RecordBatch, start: int) -> Step | None:
        return None

    def process(self, events: Sequence[Event]) -> Step:
        step = Step(counters=Counter(events=len(events)))
        for offset, _, event in events:
            if offset <= self.applied:
                continue  # the state is newer than the marker
            self.applied, self.dirty = offset, True
            if event is None:
                continue  # could not be read
            if event["kind"] == "TICK":
                self.ticks = False
                step.records.append(self._output(f"{self.partition}:{offset}:tick"))
                continue
            if event["value"] is None:
                step.failed.append((offset, DeadLetterStage.VALIDATE, InvalidRecord("no_value", "value is null")))
                continue
            self.count += 1
            self.total += int(event["value"])
            step.records.append(self._output(f"{self.partition}:{offset}:{self.count}:{self.total}"))
        return step

    def _output(self, text: str) -> OutputRecord:
        return OutputRecord(self.topic, str(self.partition).encode(), text.encode(), partition=0)

    def audit(self) -> list[OutputRecord]:
        return []

    def state_items(self) -> int:
        return 1

    def idle(self) -> Step | None:
        return None

    def needs_tick(self, now_us: int) -> bool:
        return self.ticks

    def dump_dirty(self) -> Mapping[str, bytes | None]:
        if not self.dirty:
            return {}
        self.dirty = False
        return {"sum": f"{self.count} {self.total} {self.applied}".encode(), "meta": b"m"}

    def restore(self, items: Iterable[tuple[str, bytes]]) -> None:
        held = dict(items)
        if "sum" in held:
            self.count, self.total, self.applied = map(int, held["sum"].split())

    def close(self) -> None:
        pass


def show_late(topic: str, often: int) -> None:
    """Let fetches lack records that the broker has: the first ones of a run, and some in the middle."""
    fetch, left = Consumer._wait_next_records, [often]

    async def late(self: Consumer, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's signature
        records, active = await fetch(self, timeout)
        for tp, run in (records or {}).items():
            if tp.topic == topic and left[0] and len(run) > 4 and run[0].offset > 0:
                left[0] -= 1
                records[tp] = run[2:] if left[0] % 2 else [*run[:2], *run[4:]]
        return records, active

    Consumer._wait_next_records = late  # type: ignore[method-assign]


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("steersman").setLevel(logging.INFO)
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    settings = StreamSettings(stages=("trace",))
    ticks = os.environ.get("LEDGER_TICKS") == "1"
    show_late(settings.topics.trace, int(os.environ.get("LEDGER_LATE", "0")))
    code = run_worker(
        settings,
        policies=Policies(),
        make_trace=lambda partition: Ledger(settings.topics.rollup, partition, ticks),
    )
    consumers = [found for found in gc.get_objects() if isinstance(found, Consumer)]
    kept = sum(len(offsets) for consumer in consumers for offsets in consumer._acked.values())
    logging.getLogger("steersman").info("offsets that Faust still keeps: %d of %d consumer", kept, len(consumers))
    os._exit(code)
