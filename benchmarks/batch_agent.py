"""`python -m benchmarks.batch_agent`: a Faust agent of a few lines on the platform's batch transport.

``--job rollup`` does the rollup job and nothing else: no join, no checks of the events, no saved state. ``--job
empty`` only takes the batches: what the transport itself costs.
"""

from __future__ import annotations

import argparse
import io
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import faust
import numpy as np
import polars as pl

from benchmarks.stopwatch import Stopwatch
from benchmarks.avro_container import container, container_header, zigzag
from steersman.codec import Codec
from streams.transport import SCHEME, Batching, BatchingApp, Consumer, RawSchema, RecordBatch

_WINDOW_US = 10_000_000
_MOST = 5000
_KEY = ("tenant", "agent", "operation", "window")


class Rollup:
    """Counts and sums per window, by columns."""

    def __init__(self) -> None:
        self.windows: dict[tuple[Any, ...], list[int]] = {}
        self._codec = Codec("trace_event")
        self._headers: dict[int, bytes] = {}
        self._marks = [zigzag(number) for number in range(_MOST)]

    def add(self, batch: RecordBatch) -> None:
        """Add a batch whose records were all written by one schema."""
        values = [value for value in batch.values if value is not None]
        schema, start = self._codec.frame(values[0], batch.headers[0])
        header = self._headers.get(id(schema))
        if header is None:
            # A number before and one after each body: had a record eaten bytes of its neighbour's, they would differ.
            mark = {"type": "long"}
            fields = [{"name": "before", **mark}, *_bare(schema["fields"]), {"name": "after", **mark}]
            header = self._headers[id(schema)] = container_header({"type": "record", "name": "E", "fields": fields})
        pieces = (
            piece for mark, value in zip(self._marks, values, strict=False) for piece in (mark, value[start:], mark)
        )
        frame = pl.read_avro(
            io.BytesIO(container(header, pieces, len(values))),
            columns=[
                "before",
                "tenant",
                "agent",
                "operation",
                "ts",
                "cost_micro_usd",
                "input_tokens",
                "output_tokens",
                "after",
            ],
        )
        numbers = np.arange(len(values))
        if not (
            np.array_equal(frame["before"].to_numpy(), numbers) and np.array_equal(frame["after"].to_numpy(), numbers)
        ):
            raise ValueError(f"a record of the batch at offset {batch.first} does not end where it should")
        tokens = pl.col("input_tokens").fill_null(0) + pl.col("output_tokens").fill_null(0)
        sums = frame.group_by(
            "tenant", "agent", "operation", (pl.col("ts") - pl.col("ts") % _WINDOW_US).alias("window")
        ).agg(pl.len(), pl.col("cost_micro_usd").sum(), tokens.sum().alias("tokens"))
        for *key, events, cost, count in sums.iter_rows():
            total = self.windows.setdefault(tuple(key), [0, 0, 0])
            total[0] += events
            total[1] += cost
            total[2] += count

    def found(self) -> list[list[Any]]:
        """Return [key, start of the window, events, cost, tokens] of every window."""
        return [
            [f"{tenant}|{agent}|{operation or ''}", start, *total]
            for (tenant, agent, operation, start), total in self.windows.items()
        ]


def _bare(node: Any) -> Any:
    """Leave out what bytes do not depend on; an enum is its number."""
    if isinstance(node, list):
        return [_bare(item) for item in node]
    if isinstance(node, dict):
        if node.get("type") == "enum":
            return "int"
        return {key: _bare(item) for key, item in node.items() if key in ("name", "type", "fields", "items")}
    return node


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
            except BaseException:  # polars' panics too; Faust would start the agent again, for ever
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
