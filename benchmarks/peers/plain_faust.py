"""The rollup job as a plain Faust agent: one event at a time, windows in a dict that nothing saves."""

from __future__ import annotations

from typing import Any

import faust

from benchmarks.peers.job import WINDOW_US, Trial, Window, add, arguments, decode, key_of


def main() -> None:
    """Run the worker until the last record."""
    options = arguments(__doc__)
    trial = Trial(options.records, options.result)
    app = faust.App(
        options.topic,
        broker=f"kafka://{options.brokers}",
        datadir=options.data,
        web_enabled=False,
        topic_disable_leader=True,
        topic_partitions=options.partitions,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        # Long fetches and a long queue: the defaults are slower.
        broker_max_poll_records=5000,
        consumer_max_fetch_size=4 << 20,
        stream_buffer_maxsize=16384,
    )
    events = app.topic(options.topic, value_type=bytes, value_serializer="raw", key_serializer="raw")
    windows: dict[Window, list[int]] = {}

    @app.agent(events)
    async def rollup(stream: Any) -> None:
        seen = 0
        async for value in stream:
            if seen == 0:
                trial.begin()
            seen += 1
            event = decode(value)
            window = key_of(event), event["ts"] - event["ts"] % WINDOW_US
            windows[window] = add(windows.get(window, [0, 0, 0]), event)
            if seen == trial.records:
                trial.done()
                trial.finish(windows)

    app.finalize()
    faust.Worker(app, loglevel="WARN", override_logging=True).execute_from_commandline()


if __name__ == "__main__":
    main()
