"""The rollup job in Bytewax: `fold_window` on event time, in memory, without recovery."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from benchmarks.peers.job import WINDOW_US, Trial, Window, add, arguments, decode, key_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WINDOW = timedelta(microseconds=WINDOW_US)
# Bytewax's watermark goes on with the clock on the wall: without it, a slow machine would find its input late.
_LATENESS = timedelta(seconds=30)


class Closed(StatelessSinkPartition[Any]):
    """Collects the windows that are closed."""

    def __init__(self, trial: Trial, windows: dict[Window, list[int]]) -> None:
        self._trial = trial
        self._windows = windows

    def write_batch(self, items: list[Any]) -> None:
        """Take closed windows."""
        self._trial.done()
        for key, (number, total) in items:
            self._windows[key, number * WINDOW_US] = total


class Collect(DynamicSink[Any]):
    """Makes the collector."""

    def __init__(self, trial: Trial, windows: dict[Window, list[int]]) -> None:
        self._trial = trial
        self._windows = windows

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Closed:
        """Return the only partition."""
        return Closed(self._trial, self._windows)


def main() -> None:
    """Run the dataflow to the end of the topic."""
    options = arguments(__doc__)
    trial = Trial(options.records, options.result)
    windows: dict[Window, list[int]] = {}
    seen = 0

    def decode_batch(messages: list[Any]) -> list[dict[str, Any]]:
        nonlocal seen
        if seen == 0 and messages:
            trial.begin()
        seen += len(messages)
        return [decode(message.value) for message in messages]

    flow = Dataflow("rollup")
    # tail=False: the flow ends at the end of the topic, which closes every window.
    source: Any = KafkaSource([options.brokers], [options.topic], tail=False, batch_size=5000)
    events = op.flat_map_batch("decode", op.input("events", flow, source), decode_batch)
    keyed = op.key_on("key", events, key_of)
    clock: Any = EventClock(
        lambda event: _EPOCH + timedelta(microseconds=event["ts"]), wait_for_system_duration=_LATENESS
    )
    closed = fold_window(
        "window",
        keyed,
        clock,
        TumblingWindower(length=_WINDOW, align_to=_EPOCH),
        lambda: [0, 0, 0],
        add,
        lambda one, other: [a + b for a, b in zip(one, other, strict=True)],
        ordered=False,  # sums do not mind the order, and a queue less is faster
    )
    op.output("closed", closed.down, Collect(trial, windows))
    run_main(flow)
    if seen != trial.records:
        raise SystemExit(f"{seen} records of {trial.records}")
    trial.finish(windows)


if __name__ == "__main__":
    main()
