"""Refusals of the real engine (no memory, read-only, too many parts, too large a body): waited out, nothing dropped."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.client import Client

from console.children import Child, free_port, listening, python
from sinks.clickhouse import connect
from sinks.metrics import SinkMetrics
from sinks.migrations import migrate
from sinks.tables import Message, tables
from sinks.writer import Backoff, Writer
from steersman.topics import Topics
from tests.sinks.records import value

ALERTS = next(table for table in tables(Topics()) if table.name == "alerts")
ROWS = 20_000


class Limited:
    """A client under settings of the server that the sink does not choose."""

    def __init__(self, client: Client, **limits: Any):
        self._client, self._limits = client, limits

    def raw_insert(self, table: str, *, settings: dict[str, Any], **options: Any) -> None:
        self._client.raw_insert(table, settings={**settings, **self._limits}, **options)


def filled(rows: int = ROWS) -> Writer:
    w = Writer(
        ALERTS, Backoff(random.Random(0)), lambda rejected: None, flush_s=1, flush_rows=rows, flush_bytes=1 << 30
    )
    for offset in range(rows):
        w.add(Message(ALERTS.topic, 0, offset, None, value("alerts", offset)[0], (), 1_790_000_000_000), 0.0)
    return w


def flush_until_taken(w: Writer, store: Any) -> None:
    for _ in range(100):
        if w.flush(lambda: store, 0.0):
            return
    raise AssertionError(w.last_error)


def counts(client: Client) -> Any:
    return client.query("SELECT count(), (SELECT count() FROM v_alerts), uniqExact(alert_id) FROM alerts").first_row


def test_no_memory_for_the_batch_is_memory_for_its_halves(client: Client):
    """20,000 rows need 18 MiB, 5,000 less than 16 MB: without halving, the batch would fail for ever."""
    client.command("SYSTEM STOP MERGES alerts")
    w = filled()
    flush_until_taken(w, Limited(client, max_memory_usage=16_000_000))
    assert counts(client) == (ROWS, ROWS, ROWS)
    assert w.counters["code_241"] == w.counters["halved"] == w.counters["failed_attempts"] > 0
    assert (w.counters["rows"], w.counters["inserts"], w.waiting) == (ROWS, w.counters["halved"] + 1, 0)


def test_no_memory_at_all_then_some(client: Client):
    w, metrics = filled(8), SinkMetrics()
    for _ in range(6):
        assert w.flush(lambda: Limited(client, max_memory_usage=1_000_000), 0.0) == {}
        assert w.waiting == 8
        metrics.update([w])

    def shown(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"steersman_sink_{name}", {"table": "alerts", **labels})

    assert (shown("refusals_total", code="241"), shown("failed_attempts_total"), shown("halved_total")) == (6, 6, 3)
    assert (shown("waiting_records"), shown("blocked"), shown("rows_total")) == (8, 1, 0)
    assert w.counters["halved"] == 3, "down to one row, which waits like any other"
    flush_until_taken(w, client)
    assert counts(client) == (8, 8, 8)


def test_read_only_is_waited_out_in_one_piece(client: Client):
    w = filled(50)
    for _ in range(4):
        assert w.flush(lambda: Limited(client, readonly=1), 0.0) == {}
    assert "read-only" in w.last_error
    assert w.flush(lambda: client, 0.0) == {0: 50}
    assert counts(client) == (50, 50, 50)
    assert (w.counters["code_164"], w.counters["halved"], w.counters["inserts"]) == (4, 0, 1)


def test_too_many_parts_cut_a_batch_a_few_times_and_lose_nothing(client: Client):
    client.command("INSERT INTO alerts (alert_id, ts) VALUES ('one', '2026-09-21 00:00:00')")
    client.command("SYSTEM STOP MERGES alerts")
    client.command("ALTER TABLE alerts MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1")
    w = filled(4000)
    for _ in range(8):
        assert w.flush(lambda: client, 0.0) == {}
    assert (w.counters["code_252"], w.counters["halved"]) == (8, 2), "smaller inserts would only make more parts"
    client.command("ALTER TABLE alerts RESET SETTING parts_to_throw_insert, parts_to_delay_insert")
    assert w.flush(lambda: client, 0.0) == {0: 4000}
    assert counts(client) == (4001, 4001, 4001)


def test_insert_larger_than_the_gateway_takes_goes_in_pieces(tmp_path: Path):
    port = free_port()
    command = python(
        "console.gateway", "--path", str(tmp_path / "data"), "--port", str(port), "--max-body-mib", "1", "--no-login"
    )
    child = Child("small", command, tmp_path)
    try:
        child.wait_until(lambda: listening(port), 60, "answering")
        with connect(f"http://127.0.0.1:{port}") as client:
            migrate(client)
            w = filled()
            flush_until_taken(w, client)
            assert counts(client) == (ROWS, ROWS, ROWS)
            assert w.counters["code_307"] == w.counters["halved"] > 0
    finally:
        assert child.stop() == 0
