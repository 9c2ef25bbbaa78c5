"""The endpoint with users of every kind over tables of two tenants, and how they ask."""

from __future__ import annotations

import http.client
from pathlib import Path
from urllib.parse import urlencode

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from console.children import Child, python
from serving.private_file import write_private

PASSWORD = "a-password-of-{}-1234"
USERS = f"""
[steersman]
password = "{PASSWORD.format("steersman")}"
access = "write"

[reader]
password = "{PASSWORD.format("reader")}"

[narrow]
password = "{PASSWORD.format("narrow")}"
max_execution_time = 1
max_memory_usage = 60_000_000
max_rows_to_read = 200_000
max_bytes_to_read = 10_000_000
max_result_rows = 1000
max_result_bytes = 100_000

[acme]
password = "{PASSWORD.format("acme")}"
tenant = "acme"

[quoted]
password = "{PASSWORD.format("quoted")}"
tenant = "o'brien\\\\ OR 1=1 --"
"""


class Endpoint:
    """The endpoint as a process."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.folder = folder
        users, port = folder / "users.toml", folder / "port"
        write_private(users, USERS)
        command = python("console.gateway", "--path", str(folder / "data"), "--port", "0", "--users", str(users))
        self.child = Child("endpoint", [*command, "--port-file", str(port), *args], folder)
        self.child.wait_until(port.exists, 60, "writing its port")
        self.port = int(port.read_text())

    def client(self, user: str, **options: object) -> Client:
        return clickhouse_connect.get_client(
            host="127.0.0.1", port=self.port, username=user, password=PASSWORD.format(user), autogenerate_session_id=False,
            tz_mode="aware", **options,
        )  # fmt: skip

    def ask(self, user: str, sql: str, method: str = "POST", **params: str) -> tuple[int, str]:
        """Send a statement as curl would; returns the status and the body."""
        known = {"X-ClickHouse-User": user, "X-ClickHouse-Key": PASSWORD.format(user)}
        status, _, body = self.http(
            "/?" + urlencode(params), sql.encode() if method == "POST" else None, method, **known
        )
        return status, body

    def http(
        self, path: str, body: bytes | None = None, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read().decode("utf-8", "replace")
        finally:
            connection.close()
