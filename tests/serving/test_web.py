"""What services that answer HTTP share: a taken port, the file that names the port, exit codes."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from aiohttp import web

from serving.command import exit_code
from serving.web import announced, listen
from steersman.errors import ConfigError, SteersmanError, Unreachable


def test_the_port_is_said_while_the_service_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "port"

    async def serve() -> str:
        runner = web.AppRunner(web.Application(), access_log=None)
        await runner.setup()
        try:
            await listen(runner, "127.0.0.1", 0)
            with announced("thing", runner, "127.0.0.1", file):
                return file.read_text()
        finally:
            await runner.cleanup()

    with caplog.at_level("INFO", "steersman"):
        port = asyncio.run(serve())
    assert caplog.messages == [f"thing: http://127.0.0.1:{port}"]
    assert list(tmp_path.iterdir()) == []


def test_a_port_or_address_that_cannot_be_had_is_said() -> None:
    async def serve(host: str, port: int) -> None:
        runner = web.AppRunner(web.Application(), access_log=None)
        await runner.setup()
        try:
            await listen(runner, host, port, perhaps=", perhaps by somebody")
        finally:
            await runner.cleanup()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken, perhaps by somebody; choose another with --port"):
            asyncio.run(serve("127.0.0.1", port))
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0"):
        asyncio.run(serve("192.0.2.1", 0))


@pytest.mark.parametrize(
    ("error", "code"),
    [(SteersmanError("broken"), 1), (ConfigError("wrong"), 2), (Unreachable("Kafka", "start it"), 3)],
)
def test_errors_become_a_sentence_and_a_code(
    error: SteersmanError, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> int:
        raise error

    assert exit_code("thing", work) == code
    assert [(r.name, r.getMessage()) for r in caplog.records] == [("steersman.thing", str(error))]
    assert exit_code("thing", lambda: 0) == 0
