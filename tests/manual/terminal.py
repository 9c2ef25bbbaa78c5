"""A terminal in which the commands of a page are run as they stand: its own folder, and its own network, so that the usual ports are free."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from manual.blocks import COMMANDS, ROOT, Block

LOOPBACK = "import fcntl, socket, struct; s = socket.socket(); fcntl.ioctl(s, 0x8914, struct.pack('16sH', b'lo', 0x49))"
"""Program that switches the loopback interface on: SIOCSIFFLAGS with IFF_UP, IFF_LOOPBACK and IFF_RUNNING."""
TIMEOUT_S = 300.0
"""Longest time for one block, on the busiest machine; unit: seconds."""
COPIED = ("policies.toml", "benchmarks", "examples", "learners", "streams", "tests")
"""What pages write to; all else is linked."""


class Failed(AssertionError):
    """A block of a page did not run."""


class Terminal:
    """A scratch copy of the checkout, and a network of its own where the kernel allows it.

    Parameters
    ----------
    folder
        Where the copy is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._staying: list[subprocess.Popen[bytes]] = []
        for entry in ROOT.iterdir():
            if entry.name in (".git", "site", ".steersman", "__pycache__"):
                continue
            if entry.name in COPIED:
                if entry.is_dir():
                    unwanted = shutil.ignore_patterns(".venv*", "__pycache__", "results")
                    shutil.copytree(entry, folder / entry.name, ignore=unwanted)
                else:
                    shutil.copy2(entry, folder)
            else:
                (folder / entry.name).symlink_to(entry)
        self._holder = self._own_network()
        self._turn: IO[str] | None = None
        if self._holder is None:
            # The machine's own ports are for one at a time.
            self._turn = (Path(tempfile.gettempdir()) / "steersman-usual-ports.lock").open("w")
            fcntl.flock(self._turn, fcntl.LOCK_EX)

    def _own_network(self) -> subprocess.Popen[bytes] | None:
        """Start the process that holds the network; None where there can be none, as in many containers."""
        if shutil.which("unshare") is None or shutil.which("nsenter") is None:
            return None
        program = f"{LOOPBACK}; import sys, signal; print('up', flush=True); signal.pause()"
        command = ["unshare", "--net", "--user", "--map-root-user", sys.executable, "-c", program]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert holder.stdout is not None
        if holder.stdout.readline() == b"up\n":
            return holder
        holder.wait()
        return None

    def _command(self, *command: str) -> list[str]:
        if self._holder is None:
            return list(command)
        enter = ["nsenter", "--preserve-credentials", "--user", "--net", "--target", str(self._holder.pid)]
        return [*enter, *command]

    def _env(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("STEERSMAN_", "OTEL_", "PYTEST_"))}
        path = [str(ROOT / ".venv" / "bin"), str(self.folder / "bin"), clean["PATH"]]
        return clean | {
            "PATH": os.pathsep.join(path),
            "NO_COLOR": "1",
            "COLUMNS": "160",
            "OPENBLAS_NUM_THREADS": "1",
            # Of the model server of examples/, which takes the place of the providers.
            "OPENAI_BASE_URL": "http://127.0.0.1:8600/v1",
            "OPENAI_API_KEY": "none",
        }

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run lines of bash; what still runs after the longest time is killed with all its children."""
        with self._start(script, subprocess.PIPE, subprocess.PIPE) as process:
            try:
                out, err = process.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(script, process.returncode, out.decode(), err.decode())

    def _start(self, script: str, out: int | IO[bytes], err: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command("bash", "-c", script),
            cwd=self.folder,
            env=self._env(),
            stdout=out,
            stderr=err,
            start_new_session=True,
            # Who runs the tests in the background of a shell has Ctrl-C ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def play(self, block: Block) -> str:
        """Do what a reader does with a block; returns what it printed.

        Raises
        ------
        Failed
            With what the block printed.
        """
        if block.title is not None:
            file = self.folder / block.title
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.code)
            return ""
        script = self._script(block)
        if block.until is not None:
            self._stay(block, script)
            return ""
        done = self.run(script)
        if done.returncode not in block.exit_codes:
            raise Failed(
                f"{block.page}:{block.line} ended with {done.returncode}, not one of {block.exit_codes}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout

    def _script(self, block: Block) -> str:
        if block.language in COMMANDS:
            return f"set -e\n{block.before}\n{block.code}"
        with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=f".{block.language}", delete=False) as file:
            file.write(f"{block.before}\n{block.code}")
        if block.language == "sql":
            return f'bin/steersman sql "$(cat {file.name})"'
        if block.language == "toml":
            return f"PYTHONPATH=. .venv/bin/python -m tests.manual.policy_block {file.name}"
        return f"PYTHONPATH=. .venv/bin/python -W error {file.name}"

    def _stay(self, block: Block, script: str) -> None:
        """Start a command that stays, and wait for what it prints when it is ready."""
        assert block.until is not None
        log = self.folder / f"staying-{len(self._staying)}.log"
        with log.open("wb") as out:
            process = self._start(script, out, subprocess.STDOUT)
        self._staying.append(process)
        deadline = time.monotonic() + TIMEOUT_S
        while block.until not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{block.page}:{block.line} did not print {block.until!r}\n{log.read_text()}")
            time.sleep(0.05)

    def interrupt(self) -> list[int]:
        """Press Ctrl-C in the terminals whose command stays, the last one first; returns the exit codes."""
        codes = []
        while self._staying:
            process = self._staying.pop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            try:
                codes.append(process.wait(60))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                codes.append(process.wait())
        return codes

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.interrupt()
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()
        if self._turn is not None:
            self._turn.close()
