"""The doors inside the test's process, on a thread with an event loop, and a client for them."""

from __future__ import annotations

import asyncio
import http.client
import threading
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from doors.counting import Counting
from doors.http import Doors, Limits
from doors.intake import Intake
from doors.mapped import Rules
from doors.publisher import Publisher
from serving.access import LOOPBACK, Tokens
from serving.metrics import MetricSet
from steersman.codec import Codec

LIMITS = Limits(body=64 << 10, inflated=256 << 10, requests=8, timeout_s=5.0)


class Served:
    """The application over a real publisher; the topic is `topic`."""

    def __init__(
        self,
        publisher: Publisher,
        topic: str,
        *,
        tokens: dict[str, str] | None = None,
        limits: Limits = LIMITS,
        rules: Rules | None = None,
        max_spans: int = 100,
    ) -> None:
        self.metrics = MetricSet("doors")
        self.publisher = publisher
        intake = Intake(
            topic, Codec("trace_event"), rules or Rules(), max_spans=max_spans, dead_letter_topic=f"{topic}-dead"
        )
        doors = Doors(intake, publisher, Tokens(tokens or {}, "default"), LOOPBACK, limits, Counting(self.metrics))
        self._app = doors.application()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(self._app, access_log=None, auto_decompress=False, shutdown_timeout=2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return post(self.url, path, body, **headers)


def post(url: str, path: str, body: bytes, method: str = "POST", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send a request; header names are written with ``_`` for ``-``. Returns status, headers and body."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        sent: dict[str, Any] = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, sent)
        reply = connection.getresponse()
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()
    finally:
        connection.close()
