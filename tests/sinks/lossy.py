"""A way to the gateway on which replies get lost: the insert is done, and whoever asked for it never hears of it."""

from __future__ import annotations

import re
import selectors
import socket
import socketserver
import threading
from types import TracebackType

_INSERT = re.compile(rb"INSERT[ +]INTO")


class Lossy(socketserver.ThreadingTCPServer):
    """Passes bytes on to a port of loopback.

    Attributes
    ----------
    url
        Where it listens.
    lose
        Replies to inserts that get lost from now on: the connection is closed instead.
    cut
        Bytes of such a reply that still get through.
    lost
        Replies lost so far.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int):
        super().__init__(("127.0.0.1", 0), _Connection)
        self.upstream = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lose = self.cut = self.lost = 0
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Lossy:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Connection(socketserver.BaseRequestHandler):
    server: Lossy

    def handle(self) -> None:
        inserting = False
        with socket.create_connection(self.server.upstream) as upstream, selectors.DefaultSelector() as ready:
            for end in (self.request, upstream):
                ready.register(end, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(65_536)  # type: ignore[union-attr]
                    if not data:
                        return
                    if key.fileobj is self.request:
                        inserting = inserting or _INSERT.search(data) is not None
                        upstream.sendall(data)
                    elif inserting and self.server.lose > 0:
                        self.server.lose -= 1
                        self.server.lost += 1
                        self.request.sendall(data[: self.server.cut])
                        return
                    else:
                        inserting = False
                        self.request.sendall(data)
