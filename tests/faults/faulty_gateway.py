"""`python -m tests.faults.faulty_gateway`: the console's gateway, with an endpoint that makes statements fail.

``POST /fault`` takes ``{"kind": ..., "match": ..., "count": ..., "code": ...}`` as `tests.faults.gateway.Gateway.inject`
describes them; ``GET /fault`` tells how often each kind has happened.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from console.gateway.__main__ import main
from console.gateway.http import application
from serving import codecs

ERRORS = {
    164: "Cannot execute query in readonly mode. (READONLY)",
    241: "(total) memory limit exceeded: would use 9.00 GiB, maximum: 8.00 GiB. (MEMORY_LIMIT_EXCEEDED)",
    242: "Table is in readonly mode: replica_path=/clickhouse/tables/t. (TABLE_IS_READ_ONLY)",
    252: "Too many parts (3000 with average size of 1.00 KiB) in table. Merges are processing significantly slower "
    "than inserts. (TOO_MANY_PARTS)",
}
"""What ClickHouse says with these codes."""
_HEAD = 4096  # bytes of a statement that are looked at: an INSERT names its table in the first of them

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class _Fault:
    kind: str
    match: bytes
    left: int
    code: int


class Faults:
    """Faults to come, and the middleware that makes them happen."""

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._coming: list[_Fault] = []
        self._hits: Counter[str] = Counter()

    async def control(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response(dict(self._hits))
        asked = await request.json()
        self._coming.append(
            _Fault(asked["kind"], asked["match"].upper().encode(), int(asked["count"]), int(asked["code"]))
        )
        return web.Response(status=204)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        fault = None if request.path != "/" else await self._next(request)
        if fault is None:
            return await handler(request)
        fault.left -= 1
        self._hits[fault.kind] += 1
        if fault.kind == "error":
            text = f"Code: {fault.code}. DB::Exception: {ERRORS[fault.code]}\n"
            return web.Response(status=500, text=text, headers={"X-ClickHouse-Exception-Code": str(fault.code)})
        reply = await handler(request)
        if fault.kind == "killed":
            os._exit(137)
        assert request.transport is not None
        request.transport.abort()
        return reply

    async def _next(self, request: web.Request) -> _Fault | None:
        if not any(fault.left for fault in self._coming):
            return None
        body = codecs.decompress(
            await request.read(), request.headers.get("Content-Encoding", "").lower(), self._max_body
        )
        statement = (request.query.get("query", "").encode() + b"\n" + body)[:_HEAD].upper()
        return next((fault for fault in self._coming if fault.left and fault.match in statement), None)


def faulty(engine: Any, *, max_body: int, **options: Any) -> web.Application:
    """Build the gateway's application with faults."""
    faults = Faults(max_body)

    def routes(app: web.Application) -> None:
        app.middlewares.append(faults.middleware)
        app.router.add_route("*", "/fault", faults.control)

    return application(engine, max_body=max_body, before=routes, **options)


if __name__ == "__main__":
    raise SystemExit(main(make=faulty))
