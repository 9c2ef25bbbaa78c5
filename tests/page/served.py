"""The page in the test's process, on a thread with an event loop, and data for it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from page.acts import Desk
from page.http import Page
from page.lag import Lags
from page.overview import Overview
from page.sessions import Sessions
from page.store import Store
from serving.access import LOOPBACK
from sinks.batch import Batch
from sinks.clickhouse import connect
from sinks.rows import rows_of
from sinks.tables import Message, tables
from steersman.codec import Codec
from steersman.held import PolicySource
from steersman.topics import Topics
from tests.sinks.records import record

CONTRACT = {"trace_events": "trace_event", "rewards": "reward", "alerts": "alert", "policies": "policy_snapshot"}
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'{{7*7}}"
"""A name that would be a script on a page that does not escape."""
TRACE = "ab" * 16


@contextlib.contextmanager
def serving(
    url: str,
    policies: PolicySource | None = None,
    token: str | None = None,
    desk: Desk | None = None,
    per_s: float = 0.0,
) -> Iterator[tuple[str, Page]]:
    """Serve the page over a ClickHouse; yields its address."""
    page = Page(
        Overview(Store(url, "default"), 900),
        Store(url, "default"),
        policies,
        Sessions(token),
        LOOPBACK,
        Lags({}),
        per_s=per_s,
        desk=desk,
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(page.application(), access_log=None, auto_decompress=False, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", page
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def ask(
    url: str, path: str, method: str = "GET", body: str | bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    """Ask once, following no redirect; header names with ``_`` for ``-``."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read().decode()
    finally:
        connection.close()


def first_frame(url: str, **headers: str) -> dict[str, Any]:
    """Return the first server-sent event."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request("GET", "/events", headers={k.replace("_", "-"): v for k, v in headers.items()})
        reply = connection.getresponse()
        assert (reply.status, reply.getheader("Content-Type")) == (200, "text/event-stream")
        line = reply.readline()
        assert line.startswith(b"data: "), line
        found: dict[str, Any] = json.loads(line[6:])
        return found
    finally:
        connection.close()


def insert(url: str, name: str, records: list[dict[str, Any]], first: int = 0) -> None:
    """Insert records as the sink does."""
    table = next(t for t in tables(Topics()) if t.name == name)
    codec, batch = Codec(CONTRACT[name]), Batch(name, 0.0)
    for offset, made in enumerate(records, first):
        batch.add(Message(table.topic, 0, offset, b"k", codec.encode(made), timestamp_ms=1_790_000_000_000 + offset))
    rows, rejected = rows_of(table, batch.by_partition())
    assert rejected == []
    with contextlib.closing(connect(url)) as client:
        rows.insert(client, 0, rows.count, {})


def fill(url: str, *, evil: str = EVIL, n: int = 240) -> None:
    """A loop that is better than its baseline by 0.3 of utility, a trace of it, and an alert about it."""
    now = time.time_ns() // 1000
    policies = [
        record(
            "policy_snapshot", tenant="default", policy=name, epoch=1, version=version, stage="LIVE", baseline="model=small",
            learner="linear", knobs=[{"name": "model", "levels": ['"small"', '"large"']}], applied_n=version,
            created_at=now - (200 - version) * 1_000_000, floor=0.01 * version,
        )
        for name in ("team/answers", f"team/{evil}")
        for version in (100, 190)
    ]  # fmt: skip
    insert(url, "policies", policies)
    rewards = [
        record(
            "reward", tenant="default", policy=name, decision_id=f"{name}-{i}", trace_id=TRACE if i == 0 else f"{i:032x}",
            ts=now - i * 1_000_000, decided_at=now - i * 1_000_000, arm="model=small" if i % 4 == 0 else f"model={evil}",
            mode="HOLDOUT" if i % 4 == 0 else "LIVE", quality=0.5 if i % 4 == 0 else 0.8,
            utility=(0.5 if i % 4 == 0 else 0.8) + 0.01 * (i % 3), cost_micro_usd=2000, latency_us=1_500_000, failures=0,
            explored=i % 8 == 1, agent=evil,
        )
        for name in ("team/answers", f"team/{evil}")
        for i in range(n)
    ]  # fmt: skip
    insert(url, "rewards", rewards)
    insert(
        url, "alerts",
        [record("alert", tenant="default", alert_id="a1", ts=now, detector="tool_loop", severity="CRITICAL",
                policy="team/answers", agent=evil, trace_id=TRACE, message=evil, value=7.0, threshold=3.0)],
    )  # fmt: skip
    common: dict[str, Any] = {"tenant": "default", "trace_id": TRACE, "status": "OK", "agent": evil}
    spans = [
        {"kind": "AGENT", "span_id": "a" * 16, "duration_us": 900_000, "ts": now},
        {"kind": "DECISION", "span_id": "d" * 16, "parent_span_id": "a" * 16, "ts": now - 890_000,
         "decision_id": "team/answers-0", "policy": "team/answers", "policy_epoch": 1, "policy_version": 190,
         "arm": "model=large", "propensity": 0.75, "explored": False, "mode": "LIVE", "features": [0.5, 1.0],
         "context": json.dumps({"x": evil})},
        {"kind": "MODEL_CALL", "span_id": "b" * 16, "parent_span_id": "a" * 16, "duration_us": 700_000, "ts": now - 100_000,
         "operation": evil, "cost_micro_usd": 1500, "input_tokens": 10, "output_tokens": 5},
        {"kind": "TOOL_CALL", "span_id": "c" * 16, "parent_span_id": "b" * 16, "duration_us": 100_000, "ts": now - 200_000,
         "operation": f"search {evil}", "status": "ERROR", "error": evil},
        {"kind": "FEEDBACK", "span_id": "e" * 16, "ts": now, "metric": "quality", "value": 0.9, "comment": evil, "label": evil},
    ]  # fmt: skip
    insert(
        url,
        "trace_events",
        [record("trace_event", event_id=f"{i:032x}", **{**common, **s}) for i, s in enumerate(spans)],
    )
