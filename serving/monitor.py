"""The endpoint that every service has for its operators: ``/metrics``, ``/livez``, ``/readyz``, ``/version``.

On threads of its own, so that it answers also while the service is stuck: that is when it matters.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from serving.access import LOOPBACK, foreign_host
from serving.health import Health
from steersman import __version__
from steersman.errors import ConfigError

_TIMEOUT_S = 10.0


class Monitor:
    """Serves the metrics and the health of a service.

    Parameters
    ----------
    registry
        Its metrics.
    health
        Its health.
    port
        TCP port, 0 for any free one.
    host
        Address to bind; on the loopback interface only loopback Host headers are answered.

    Attributes
    ----------
    url
        Where it is.

    Raises
    ------
    ConfigError
        When the port is taken.
    """

    def __init__(self, registry: CollectorRegistry, health: Health, port: int, host: str = "127.0.0.1") -> None:
        hosts = LOOPBACK if host in LOOPBACK else None

        class Handler(_Handler):
            pass

        Handler.registry, Handler.health, Handler.hosts = registry, health, hosts
        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise ConfigError(
                f"port {port} for /metrics is taken ({error.strerror}); choose another with --metrics-port, or 0 for "
                "any free one"
            ) from error
        self.port = int(self._server.server_address[1])
        self.url = f"http://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="monitor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that hung up is no event."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _TIMEOUT_S
    protocol_version = "HTTP/1.1"
    server_version = "steersman"
    sys_version = ""
    registry: CollectorRegistry
    health: Health
    hosts: frozenset[str] | None

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds."""

    def do_GET(self) -> None:
        """Answer."""
        if self.hosts is not None:
            host = foreign_host(self.headers.get("Host"), self.headers.get("Origin"), self.hosts)
            if host is not None:
                self._json(403, {"error": f"host {host!r} is not served here"})
                return
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._reply(200, content_type, encode(self.registry))
        elif path == "/livez":
            reasons = self.health.dead()
            self._json(503 if reasons else 200, {"alive": not reasons, "reasons": reasons})
        elif path == "/readyz":
            reasons = self.health.unready()
            self._json(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})
        elif path == "/version":
            self._json(200, {"version": __version__})
        else:
            self._json(404, {"error": "there are /metrics, /livez, /readyz and /version"})

    do_HEAD = do_GET

    def _json(self, status: int, value: dict[str, Any]) -> None:
        self._reply(status, "application/json", json.dumps(value).encode() + b"\n")

    def _reply(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
