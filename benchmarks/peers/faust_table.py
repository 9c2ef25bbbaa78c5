"""The rollup job as Faust documents it: a tumbling table, whose changelog is in Kafka."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import faust

from benchmarks.peers.job import WINDOW_US, Trial, add, arguments, decode, key_of


def main() -> None:
    """Run the worker until the last record."""
    options = arguments(__doc__)
    trial = Trial(options.records, options.result)
    app = faust.App(
        options.topic,
        broker=f"kafka://{options.brokers}",
        datadir=options.data,
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_partitions=options.partitions,
        topic_replication_factor=1,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        broker_max_poll_records=5000,
        consumer_max_fetch_size=4 << 20,
        stream_buffer_maxsize=16384,
    )
    events = app.topic(
        options.topic,
        value_type=bytes,
        value_serializer="raw",
        key_serializer="raw",
        partitions=options.partitions,
    )
    table = app.Table("rollup", default=lambda: [0, 0, 0], partitions=options.partitions)
    windows = table.tumbling(WINDOW_US / 1e6, expires=timedelta(hours=1))

    @app.agent(events)
    async def rollup(stream: Any) -> None:
        seen = 0
        async for value in stream:
            if seen == 0:
                trial.begin()
            seen += 1
            event = decode(value)
            key = key_of(event)
            # current(): the window of the event's timestamp, not of the clock on the wall.
            windows[key] = add(windows[key].current(), event)
            if seen == trial.records:
                trial.done()
                found = {(key, round(start * 1e6)): total for (key, (start, _)), total in table.data.items()}
                trial.finish(found)

    app.finalize()
    faust.Worker(app, loglevel="WARN", override_logging=True).execute_from_commandline()


if __name__ == "__main__":
    main()
