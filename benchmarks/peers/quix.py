"""The rollup job in Quix Streams: a stateful tumbling window, in RocksDB with its changelog in Kafka."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from quixstreams import Application
from quixstreams.models import Deserializer, SerializationContext

from benchmarks.peers.job import WINDOW_US, Trial, Window, add, arguments, decode


class TraceEvents(Deserializer):
    """Decodes trace events."""

    def __call__(self, value: bytes, ctx: SerializationContext) -> dict[str, Any]:
        return decode(value)


def main() -> None:
    """Run the application until the last record."""
    options = arguments(__doc__)
    trial = Trial(options.records, options.result)
    app = Application(
        broker_address=options.brokers,
        consumer_group=options.topic,
        auto_offset_reset="earliest",
        state_dir=str(options.data),
        loglevel="WARNING",
    )
    # The key is the window's key, and Kafka's timestamp is the event's.
    topic = app.topic(options.topic, value_deserializer=TraceEvents(), key_deserializer="str")
    windows: dict[Window, list[int]] = {}
    seen = 0

    def count(event: dict[str, Any]) -> dict[str, Any]:
        nonlocal seen
        if seen == 0:
            trial.begin()
        seen += 1
        return event

    def close(window: dict[str, Any], key: Any, timestamp: int, headers: Any) -> None:
        windows[key, window["start"] * 1000] = window["value"]

    def end(event: dict[str, Any]) -> None:
        if seen == trial.records:
            trial.done()
            trial.finish(windows)

    frame = app.dataframe(topic).apply(count)
    frame.tumbling_window(timedelta(microseconds=WINDOW_US)).reduce(
        reducer=add, initializer=lambda event: add([0, 0, 0], event)
    ).final(closing_strategy="partition").update(close, metadata=True)
    # A branch of its own: the record that closes the last windows is counted after they have been.
    frame.update(end)
    app.run()


if __name__ == "__main__":
    main()
