"""A sink with ClickHouse in its own process: one connection, so each insert is waited for."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from console.children import Child, free_port, python
from sinks.clickhouse import connect
from steersman.topics import Topics
from tests.sinks.records import event, value


def test_a_sink_that_has_the_data_itself(
    start: Callable[..., Child], produce: Any, until: Callable[..., None], topics: Topics, tmp_path: Path
) -> None:
    url = f"chdb://{tmp_path}/data"
    migrating = Child("migrating", python("sinks", "migrate"), tmp_path, {"STEERSMAN_CLICKHOUSE_URL": url})
    assert migrating.wait(60) == 0, migrating.tail()
    for i in range(1200):
        produce(topics.trace, event(i))
    for i in range(30):
        produce(topics.alert, value("alerts", i)[0])
    produce.flush(10)
    port = free_port()
    sink = start(STEERSMAN_CLICKHOUSE_URL=url, STEERSMAN_METRICS_PORT=str(port))

    def stored(table: str, count: int) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply,
        ):
            return f'steersman_sink_rows_total{{table="{table}"}} {count}.0' in reply.read().decode()
        return False

    until(lambda: stored("trace_events", 1200) and stored("alerts", 30), sink)
    assert sink.stop(40) == 0, sink.tail()
    with connect(url) as client:
        counts = client.query("SELECT (SELECT count() FROM v_events), (SELECT count() FROM v_alerts)").first_row
    assert counts == (1200, 30)
