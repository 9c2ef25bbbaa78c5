"""Child processes of the local stack: started together, watched, and stopped without leaving one behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from steersman.errors import SteersmanError

ROOT = Path(__file__).resolve().parent.parent
# The matrices are small and every process shares the machine: BLAS threads would only spin against each other.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class ChildFailed(SteersmanError):
    """A child process ended, or was not ready, when it should have been."""


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on at the moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def listening(port: int) -> bool:
    """Tell whether something accepts connections on a loopback port."""
    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex(("127.0.0.1", port)) == 0


class Child:
    """One child process with its log file.

    Parameters
    ----------
    name
        Shown in messages; also the stem of the log file.
    command
        Program and arguments.
    log_dir
        Where `<name>.log` is written, standard output and standard error together.
    env
        Variables set over the parent's environment.
    """

    def __init__(self, name: str, command: Sequence[str], log_dir: Path, env: Mapping[str, str] | None = None):
        log_dir.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = log_dir / f"{name}.log"
        path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
        with self.log.open("ab") as out:
            # A process group of its own keeps the terminal's Ctrl-C from reaching children twice: the
            # parent decides the order in which they stop.
            self._process = subprocess.Popen(  # noqa: S603
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **_ONE_THREAD, **(env or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    def tail(self, lines: int = 12) -> str:
        """Return the last lines of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def wait_until(self, ready: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait until `ready()` is true.

        Raises
        ------
        ChildFailed
            When the process ends first or the time runs out; the message carries the end of its log.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.exit_code is not None:
                raise ChildFailed(f"{self.name} ended with exit code {self.exit_code} before {what}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ChildFailed(f"{self.name} did not reach '{what}' within {timeout_s:g} s:\n{self.tail()}")
            time.sleep(0.02)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; returns the exit code, or None when it still runs after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its whole process group; nothing happens when it has ended."""
        if self.exit_code is None:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        """Kill it at once, as a crash would."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def stop(self, grace_s: float = 10.0) -> int:
        """Ask it to stop, and kill it when it has not within `grace_s`; returns the exit code."""
        self.signal(signal.SIGTERM)
        code = self.wait(grace_s)
        if code is None:
            self.kill()
            code = self._process.returncode
        return int(code)


def python(module: str, *args: str) -> list[str]:
    """Command that runs a module of this checkout with this interpreter."""
    return [sys.executable, "-m", module, *args]


class Children:
    """Children that stop in the reverse order of their start, whatever happens."""

    def __init__(self, log_dir: Path):
        self.log_dir = log_dir
        self.children: list[Child] = []

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> Child:
        child = Child(name, command, self.log_dir, env)
        self.children.append(child)
        return child

    def dead(self) -> list[Child]:
        """Return those that have ended."""
        return [c for c in self.children if c.exit_code is not None]

    def stop(self, grace_s: float = 10.0) -> None:
        while self.children:
            self.children.pop().stop(grace_s)

    def __enter__(self) -> Children:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
