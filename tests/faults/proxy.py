"""A TCP proxy between clients and one server whose link can be slowed, cut and swallowed while it is in use.

A Kafka client goes round it after the first metadata reply unless the broker advertises the proxy's port, so count:
`to_server` and `to_client` say whether bytes really came this way.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any

_CHUNK = 64 << 10
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


class Proxy:
    """One link, in a thread of its own.

    Parameters
    ----------
    target
        Loopback port of the server; it need not listen yet, and may be set later.
    port
        Port to listen on, 0 for a free one.

    Attributes
    ----------
    target
        Port that connections lead to.
    port
        Port that clients connect to.
    to_server, to_client
        Bytes forwarded in each direction.
    refused
        Connections reset on arrival.
    """

    def __init__(self, target: int = 0, port: int = 0):
        self.target = target
        self.to_server = 0
        self.to_client = 0
        self.refused = 0
        self._latency_s = 0.0
        self._bytes_per_s = 0.0
        self._resetting = False
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", port)).result(5)
        self.port = int(self._server.sockets[0].getsockname()[1])

    # -- modes

    def restore(self) -> None:
        """Forward everything at once, as in the beginning; what a black hole held back flows on."""
        self._do(self._set(latency_s=0, bytes_per_s=0, resetting=False, flows=True)).result(5)

    def slow(self, *, latency_ms: float = 0, bytes_per_s: float = 0) -> None:
        """Hold every byte back for a time in each direction, and bound the rate of each (0: no bound)."""
        self._do(self._set(latency_s=latency_ms / 1000, bytes_per_s=bytes_per_s, resetting=False, flows=True)).result(5)

    def reset(self) -> None:
        """Reset (RST) all connections, and every new one, until `restore`."""
        self._do(self._set(latency_s=0, bytes_per_s=0, resetting=True, flows=True)).result(5)

    def blackhole(self) -> None:
        """Keep and accept connections, but forward nothing, until `restore`: a partition of the network."""
        self._do(self._set(latency_s=0, bytes_per_s=0, resetting=False, flows=False)).result(5)

    def close(self) -> None:
        """Cut everything and stop."""
        self._do(self._shut()).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- inside the loop

    def _do(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _set(self, *, latency_s: float, bytes_per_s: float, resetting: bool, flows: bool) -> None:
        self._latency_s, self._bytes_per_s, self._resetting = latency_s, bytes_per_s, resetting
        if flows:
            self._open.set()
        else:
            self._open.clear()
        if resetting:
            for writer in list(self._writers):
                _abort(writer)

    async def _shut(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            _abort(writer)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served = asyncio.current_task()
        assert served is not None
        self._tasks.add(served)
        served.add_done_callback(self._tasks.discard)
        if self._resetting:
            self.refused += 1
            _abort(writer)
            return
        self._writers.add(writer)
        upstream: asyncio.StreamWriter | None = None
        tasks: list[asyncio.Future[None]] = []
        try:
            await self._open.wait()
            answers, upstream = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(upstream)
            ways = [self._pump(reader, upstream, True), self._pump(answers, writer, False)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass  # one side is gone; so is the other, below
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in (writer, upstream):
                if one is not None:
                    self._writers.discard(one)
                    _abort(one)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upwards: bool) -> None:
        """Read as long as there is room for what is on its way, until one side ends."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        sending = asyncio.ensure_future(self._send(line, writer, upwards))
        try:
            while chunk := await reader.read(_CHUNK):
                await line.put((self._loop.time() + self._latency_s, chunk))
                if sending.done():
                    break
            await line.put((0.0, b""))
            await sending
        finally:
            sending.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await sending

    async def _send(
        self, line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, upwards: bool
    ) -> None:
        while True:
            due, chunk = await line.get()
            await self._open.wait()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            if not chunk:
                return
            if self._bytes_per_s:
                await asyncio.sleep(len(chunk) / self._bytes_per_s)
            writer.write(chunk)
            await writer.drain()
            if upwards:
                self.to_server += len(chunk)
            else:
                self.to_client += len(chunk)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with RST, whatever is still to be sent."""
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
