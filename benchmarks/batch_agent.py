"""`python -m benchmarks.batch_agent`: a Faust agent of a few lines on the platform's batch transport.

``--job rollup`` does the rollup job and nothing else: no join, no checks of the events, no saved state. ``--job
empty`` only takes the batches: what the transport itself costs.
"""

from __future__ import annotations

import argparse
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import faust
import numpy as np

from benchmarks.stopwatch import Stopwatch
from columns.avro import ColumnReader
from steersman.codec import Codec
from streams.record_batch import RecordBatch
from streams.text_columns import codes_of, combine
from streams.transport import SCHEME, Batching, BatchingApp, Consumer, RawSchema

_WINDOW_US = 10_000_000
_MOST = 5000
_NAMES = ("tenant", "agent", "operation")


class Rollup:
    """Counts and sums per window, by columns."""

    def __init__(self) -> None:
        self.windows: dict[tuple[Any, ...], list[int]] = {}
        self._codec = Codec("trace_event")
        self._readers: dict[int, ColumnReader] = {}

    def add(self, batch: RecordBatch) -> None:
        """Add a batch whose records were all written by one schema."""
        values = [value for value in batch.values if value is not None]
        schema, start = self._codec.frame(values[0], batch.headers[0])
        reader = self._readers.get(id(schema))
        if reader is None:
            reader = self._readers[id(schema)] = ColumnReader(schema)
        block = reader.read(values, np.full(len(values), start))
        if not block.sure.all():
            raise ValueError(f"the batch at offset {batch.first} holds a record that is not to be read by columns")
        ts = block.numbers("ts").values
        windows, groups = np.unique(ts - ts % _WINDOW_US, return_inverse=True)
        window_of = groups
        columns = [codes_of(block.texts(name), block.sure) for name in _NAMES]
        for codes, _ in columns:
            groups = combine(groups, codes)
        _, first, groups = np.unique(groups, return_index=True, return_inverse=True)
        cost, sent, received = (
            block.numbers(name).values for name in ("cost_micro_usd", "input_tokens", "output_tokens")
        )
        sums = np.zeros((len(first), 3), np.int64)
        np.add.at(sums, groups, np.stack([np.ones_like(cost), cost, sent + received], axis=1))
        keys = ([names[code] for code in codes[first].tolist()] for codes, names in columns)
        for *key, added in zip(*keys, windows[window_of[first]].tolist(), sums.tolist(), strict=True):
            total = self.windows.get(tuple(key), [0, 0, 0])
            self.windows[tuple(key)] = [held + more for held, more in zip(total, added, strict=True)]

    def found(self) -> list[list[Any]]:
        """Return [key, start of the window, events, cost, tokens] of every window."""
        return [
            [f"{tenant}|{agent}|{operation}", start, *total]
            for (tenant, agent, operation, start), total in self.windows.items()
        ]


def main() -> None:
    """Run the agent until the last record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch_agent", description=__doc__)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--records", type=int, required=True, help="records in the topic")
    parser.add_argument("--result", type=Path, required=True, help="file for the result")
    parser.add_argument("--data", type=Path, required=True, help="folder that Faust wants")
    parser.add_argument("--job", choices=["rollup", "empty"], required=True)
    options = parser.parse_args()
    rollup = Rollup()
    run(options, rollup.add if options.job == "rollup" else lambda batch: None, rollup.found)


def run(options: argparse.Namespace, work: Callable[[RecordBatch], None], found: Callable[[], list[list[Any]]]) -> None:
    """Run an app whose only agent does `work` with every batch, until the last record."""
    app = BatchingApp(
        options.topic,
        broker=f"{SCHEME}://{options.brokers}",
        datadir=options.data,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_partitions=options.partitions,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        stream_buffer_maxsize=64,
        broker_max_poll_records=_MOST,
        consumer_max_fetch_size=4 << 20,
        value_serializer="raw",
        key_serializer="raw",
    )
    app.batching = Batching(frozenset({options.topic}))
    watch = Stopwatch()

    async def agent(stream: Any) -> None:
        async for batch in stream:
            watch.begin()
            try:
                work(batch)
            except Exception:  # Faust would start the agent again, for ever
                traceback.print_exc()
                os._exit(1)
            cast(Consumer, app.consumer).acknowledge(batch)
            watch.took(len(batch))
            if watch.records >= options.records:
                watch.write(options.result, windows=found())
                # Shutting down is not part of the job; the process that started this one ends it.

    app.agent(app.topic(options.topic, schema=RawSchema()), concurrency=1)(agent)
    app.finalize()
    faust.Worker(app, loglevel="WARN", override_logging=True).execute_from_commandline()


if __name__ == "__main__":
    main()
