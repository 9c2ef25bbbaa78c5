"""A headless Chromium driven over its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_DEADLINE_S = 30.0


def executable() -> str:
    """Return the browser; without one the test is skipped, where CI is set it fails."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed: apt-get install chromium")
        pytest.skip("needs Chromium")
    return found


class Tab:
    """One page of the browser.

    Attributes
    ----------
    dialogs
        Texts of the dialogs that opened, each of them a script that must not have run.
    errors
        What went to the console as an error, refusals of the content security policy among them.
    requests
        Addresses that were asked.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.dialogs: list[str] = []
        self.errors: list[str] = []
        self.requests: list[str] = []

    async def listen(self) -> None:
        """Read what the browser says, until it ends."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                if answer := self._answers.pop(said["id"], None):
                    answer.set_result(said)
            elif said["method"] == "Page.javascriptDialogOpening":
                self.dialogs.append(said["params"]["message"])
                await self._socket.send_json(
                    {"id": next(self._ids), "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                )
            elif said["method"] == "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])
            elif said["method"] == "Runtime.exceptionThrown":
                self.errors.append(str(said["params"]["exceptionDetails"].get("exception", {}).get("description")))
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.errors.append(said["params"]["entry"]["text"] + " " + said["params"]["entry"].get("url", ""))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        said = await asyncio.wait_for(answer, _DEADLINE_S)
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    async def js(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        said = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until an expression is true; a page that is just being left does not fulfil it."""
        deadline = asyncio.get_running_loop().time() + _DEADLINE_S
        while True:
            with contextlib.suppress(AssertionError):
                if value := await self.js(expression):
                    return value
            text = "" if asyncio.get_running_loop().time() < deadline else await self.js("document.body.innerText")
            assert not text, f"{expression} did not come true on:\n{text}\n{self.errors}"
            await asyncio.sleep(0.05)

    async def open(self, url: str, ready: str = "document.readyState === 'complete'") -> None:
        """Go to an address and wait until an expression is true there."""
        await self.call("Page.navigate", url=url)
        await self.until(f"location.href !== 'about:blank' && {ready}")

    async def key(self, key: str, code: int) -> None:
        """Press a key."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    async def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the window and the colours preferred."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[feature])

    async def shot(self, file: Path) -> None:
        """Write a picture of the whole page."""
        said = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(said["data"]))


@contextlib.contextmanager
def _chromium(folder: Path) -> Iterator[str]:
    """Run a browser; yields the port of its DevTools."""
    command = [
        executable(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        port_file, deadline = folder / "DevToolsActivePort", time.monotonic() + _DEADLINE_S
        while not port_file.exists() or "\n" not in port_file.read_text():
            assert child.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield port_file.read_text().split()[0]
    finally:
        child.terminate()
        child.wait(20)


def browse(folder: Path, work: Callable[[Tab], Awaitable[None]]) -> None:
    """Run a coroutine with a fresh browser, its profile in a folder."""

    async def run(port: str) -> None:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
                target = next(t for t in await reply.json() if t["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=64 << 20) as socket:
                tab = Tab(socket)
                reader = asyncio.create_task(tab.listen())
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await tab.call(f"{domain}.enable")
                await work(tab)
                reader.cancel()

    with _chromium(folder) as port:
        asyncio.run(run(port))
