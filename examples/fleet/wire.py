"""How the agents talk: one JSON object a line over a loopback TCP connection, many requests in flight at once.

A request carries `id`, the caller's W3C `traceparent` and a body; its answer carries the same `id`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Handler = Callable[[Message], Awaitable[Message]]
_LIMIT = 1 << 20


class Peer:
    """A connection to another agent; `call` may be awaited by many tasks at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._next = 0
        self._receiver = asyncio.create_task(self._receive())

    @classmethod
    async def connect(cls, port: int) -> Peer:
        """Open a connection to the agent that listens on `port`; ConnectionError when nobody does."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT))

    async def call(self, message: Message) -> Message:
        """Send a request and return its answer; ConnectionError when the other agent goes away first."""
        if self._receiver.done():
            raise ConnectionError("the other agent has gone away")
        self._next += 1
        number = self._next
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(json.dumps({**message, "id": number}).encode() + b"\n")
            await self._writer.drain()
            return await answer
        finally:
            self._waiting.pop(number, None)

    async def _receive(self) -> None:
        try:
            while line := await self._reader.readline():
                answer = json.loads(line)
                waiting = self._waiting.get(answer["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionError("the other agent has gone away"))

    async def close(self) -> None:
        """Close the connection."""
        self._receiver.cancel()
        self._writer.close()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await self._receiver


async def serve(handler: Handler) -> asyncio.Server:
    """Listen on a free loopback port; each request is handled in a task of its own.

    A request that cannot be read or handled is answered with `error`, so that one bad caller stops nobody else.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks: set[asyncio.Task[None]] = set()
        try:
            while line := await reader.readline():
                task = asyncio.create_task(_answer(handler, line, writer))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except (ConnectionError, ValueError):
            pass  # the caller is gone, or sent a line over the limit: nobody is left to answer
        finally:
            writer.close()

    return await asyncio.start_server(connected, "127.0.0.1", 0, limit=_LIMIT)


async def _answer(handler: Handler, line: bytes, writer: asyncio.StreamWriter) -> None:
    number: object = None
    try:
        request = json.loads(line)
        number = request["id"]
        answer = await handler(request)
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    if not writer.is_closing():
        writer.write(json.dumps({**answer, "id": number}).encode() + b"\n")


def port_of(server: asyncio.Server) -> int:
    """Return the port that `server` listens on."""
    return int(server.sockets[0].getsockname()[1])
