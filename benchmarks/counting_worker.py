"""The counting job as a stage of the platform's own worker: its transport, runner and state topic.

Run by `benchmarks.faults_plain_faust`, with the worker's settings in the environment (`STEERSMAN_*`).
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from learners.policies import Policies
from streams.edges import Event, Step
from streams.outputs import OutputRecord
from streams.record_batch import RecordBatch
from streams.settings import StreamSettings
from streams.worker import run_worker


class CountingStage:
    """Count and sum per counter, for one partition.

    Parameters
    ----------
    topic
        Where the counts go.
    partition
        Partition of the input.
    """

    def __init__(self, topic: str, partition: int) -> None:
        self._topic = topic
        self._partition = partition
        # Counter -> events, sum of values, offset of the last event applied.
        self._counts: dict[str, tuple[int, int, int]] = {}
        self._dirty: set[str] = set()

    def process_batch(self, batch: RecordBatch, start: int) -> Step | None:
        return None

    def process(self, events: Sequence[Event]) -> Step:
        """Count the events, and put out the counts that they changed."""
        touched: dict[str, None] = {}
        for offset, _, event in events:
            if event is None:
                continue  # could not be read
            counter = event["agent"]
            count, total, applied = self._counts.get(counter, (0, 0, -1))
            if offset <= applied:
                continue  # the counter's record is newer than the marker
            self._counts[counter] = count + 1, total + int(event["value"]), offset
            touched[counter] = None
        self._dirty.update(touched)
        records = [
            OutputRecord(
                self._topic,
                json.dumps(counter).encode(),
                json.dumps(self._counts[counter]).encode(),
                partition=self._partition,
            )
            for counter in touched
        ]
        return Step(records=records, counters=Counter(events=len(events)))

    def audit(self) -> list[OutputRecord]:
        """Nothing is put on record but the counts themselves."""
        return []

    def state_items(self) -> int:
        """Count the counters."""
        return len(self._counts)

    def idle(self) -> Step | None:
        """Nothing: only events move the counts."""
        return None

    def needs_tick(self, now_us: int) -> bool:
        """Never: counts do not care for the time."""
        return False

    def dump_dirty(self) -> Mapping[str, bytes | None]:
        """Return the counts changed since the last call."""
        dirty = {counter: json.dumps(self._counts[counter]).encode() for counter in self._dirty}
        self._dirty.clear()
        return dirty

    def restore(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Take up saved counts."""
        for counter, saved in items:
            count, total, applied = json.loads(saved)
            self._counts[counter] = count, total, applied

    def close(self) -> None:
        """Nothing: nothing runs beside it."""


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    settings = StreamSettings(stages=("trace",))
    code = run_worker(
        settings,
        policies=Policies(),
        make_trace=lambda partition: CountingStage(settings.topics.rollup, partition),
    )
    os._exit(code)
