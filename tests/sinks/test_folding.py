"""The sink folds while it runs: what it stores is in totals soon after, and what comes late is not missed."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

from clickhouse_connect.driver.client import Client

from console.children import Child, free_port
from steersman.codec import Codec
from steersman.topics import Topics
from tests.sinks.records import START_US, record
from tests.sinks.test_traces import SPANS, by_trace

TRACES = 20


def test_the_sink_folds_in_the_background(
    start: Callable[..., Child], produce: Any, topics: Topics, client: Client, until: Callable[..., None]
) -> None:
    port = free_port()
    sink = start(STEERSMAN_SINK_FOLD_EVERY_S="0.3", STEERSMAN_SINK_FOLD_SETTLE_S="1", STEERSMAN_METRICS_PORT=str(port))
    codec = Codec("trace_event")

    def send(first: int, cost: int) -> None:
        for n in range(TRACES):
            made = record(
                "trace_event", event_id=f"{first + n:032x}", tenant="t", trace_id=f"{n:032x}", kind="MODEL_CALL",
                ts=START_US + first + n, cost_micro_usd=cost,
            )  # fmt: skip
            produce(topics.trace, codec.encode(made), key=made["trace_id"])
        produce.flush()

    def folded(cost: int) -> bool:
        query = "SELECT countIf(cost_micro_usd = {cost:Int64}), count() FROM trace_totals FINAL WHERE version <= (SELECT max(version) FROM trace_folds)"
        return bool(client.query(query, parameters={"cost": cost}).result_rows[0] == (TRACES, TRACES))

    send(0, 7)
    until(lambda: folded(7), sink)
    assert {row[-2] for row in by_trace(client, SPANS[0]).values()} == {7}
    send(1000, 5)
    until(lambda: {row[-2] for row in by_trace(client, SPANS[0]).values()} == {12}, sink)
    until(lambda: folded(12), sink)
    assert len(by_trace(client, SPANS[0])) == TRACES
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        said = reply.read().decode()
    assert f"steersman_sink_folded_traces_total {2 * TRACES}" in said.replace(".0\n", "\n")
    assert "steersman_sink_fold_failures_total 0" in said
    assert sink.stop() == 0
    assert json.loads(sink.log.read_text().splitlines()[-1])
