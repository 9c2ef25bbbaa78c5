"""The sink's endpoint: a process that runs and commits nothing is not alive."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from console.children import Child, free_port
from steersman.topics import Topics
from tests.sinks.records import value


def ask(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
    except OSError:
        return 0, None


def test_records_that_wait_while_none_is_committed(
    start: Callable[..., Child], produce: Any, topics: Topics, until: Callable[..., None]
) -> None:
    port = free_port()
    # It would store a row after a minute: longer than it may go without a commit while rows wait.
    sink = start(
        STEERSMAN_SINK_FLUSH_S="60",
        STEERSMAN_SINK_FLUSH_ROWS="100000",
        STEERSMAN_STALL_S="4",
        STEERSMAN_METRICS_PORT=str(port),
    )
    url = f"http://127.0.0.1:{port}"
    until(lambda: ask(f"{url}/readyz")[0] == 200, sink)
    assert ask(f"{url}/livez") == (200, {"alive": True, "reasons": []})
    for offset in range(5):
        produce(topics.alert, value("alerts", offset)[0])
    produce.flush(10)
    until(lambda: ask(f"{url}/livez")[0] == 503, sink)
    reasons = ask(f"{url}/livez")[1]["reasons"]
    assert reasons[0].startswith("5 records wait, and none was committed for ")
    assert ask(f"{url}/readyz")[0] == 503
    assert sink.stop(30) == 0, "what waits is stored at the end"
