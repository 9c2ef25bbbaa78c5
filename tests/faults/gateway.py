"""A ClickHouse that can be killed, paused and told to fail: the gateway over chDB as a child process."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Literal

from console.children import Child, free_port, python
from console.gateway.users import READER, WRITER, make_users, passwords

Fault = Literal["reply_lost", "killed", "error"]


class Gateway:
    """The gateway as a child process on one port and data folder, whatever happens to it.

    Parameters
    ----------
    folder
        Where its data and its log go.
    faulty
        With the fault endpoint of `tests.faults.faulty_gateway`.

    Attributes
    ----------
    url, reading
        Addresses with the passwords of the user who writes and of the one who reads.
    address
        Address without.
    """

    def __init__(self, folder: Path, *, faulty: bool = False):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        self.users = folder / "users.toml"
        make_users(self.users)
        known = passwords(self.users)
        self.url, self.reading = (f"http://{name}:{known[name]}@127.0.0.1:{self.port}" for name in (WRITER, READER))
        self._module = "tests.faults.faulty_gateway" if faulty else "console.gateway"
        self.child = self._start()

    def _start(self) -> Child:
        child = Child(
            "gateway",
            python(
                self._module, "--path", str(self.folder / "data"), "--port", str(self.port), "--users", str(self.users)
            ),
            self.folder,
        )
        child.wait_until(self._answers, 30, "answering")
        return child

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/ping", timeout=1) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        self.child.kill()

    def restart(self) -> None:
        self.child = self._start()

    def pause(self) -> None:
        """Stop it in its tracks: connections stay, answers do not come."""
        self.child.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.child.signal(signal.SIGCONT)

    def inject(self, kind: Fault, *, match: str = "INSERT", count: int = 1, code: int = 252) -> None:
        """Make the next statements that contain `match` fail.

        Parameters
        ----------
        kind
            ``reply_lost``: run it, then close the connection without a reply. ``killed``: run it, then die without a
            reply. ``error``: do not run it, answer with a ClickHouse error.
        match
            Text that a statement must contain, in any case.
        count
            How many statements.
        code
            ClickHouse's error code, for ``error``.
        """
        fault = {"kind": kind, "match": match, "count": count, "code": code}
        request = urllib.request.Request(f"{self.address}/fault", json.dumps(fault).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert reply.status == 204

    def hits(self) -> dict[str, int]:
        """How often each kind of fault has happened since the process started."""
        with urllib.request.urlopen(f"{self.address}/fault", timeout=10) as reply:
            found: dict[str, Any] = json.load(reply)
        return {kind: int(count) for kind, count in found.items()}

    def stop(self) -> int:
        self.resume()
        return self.child.stop()
