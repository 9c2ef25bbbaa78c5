"""Environments of their own for what we are measured against: made when they are missing, from a hashed lock."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Figure, say
from steersman.errors import SteersmanError

_HERE = Path(__file__).parent
_STAMP = "lock.sha256"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes
    ----------
    folder
        Where it is.
    lock
        Its requirements, with hashes.
    """

    folder: Path
    lock: Path

    def python(self, run: Run = subprocess.run) -> Path:
        """Return its interpreter, after making the environment if it is missing or of another lock.

        Parameters
        ----------
        run
            Replaces `subprocess.run`.

        Raises
        ------
        SteersmanError
            When it cannot be made.
        """
        python, stamp = self.folder / "bin" / "python", self.folder / _STAMP
        wanted = hashlib.sha256(self.lock.read_bytes()).hexdigest()
        if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
            say(f"making {self.folder.name} from {self.lock.name}")
            pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            try:
                run([sys.executable, "-m", "venv", "--clear", str(self.folder)], check=True)
                run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(self.lock)], check=True)
            except subprocess.CalledProcessError as error:
                raise SteersmanError(f"{self.folder.name} cannot be made from {self.lock.name}: {error}") from error
            stamp.write_text(wanted)
        return python

    def command(self, module: str, *arguments: str) -> list[str]:
        """Return the command that runs a module; SteersmanError as of `python`."""
        return [str(self.python()), "-m", module, *arguments]

    def versions(self, packages: Iterable[str]) -> dict[str, str]:
        """Return the versions that the lock pins, as ``peers: <package>``."""
        pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", self.lock.read_text(), re.MULTILINE))
        return {f"peers: {package}": pinned[package] for package in packages}


def _named(name: str) -> Environment:
    return Environment(_HERE / f".venv-{name}", _HERE / "peers" / f"requirements-{name}.txt")


STREAMING = _named("streaming")
"""Other stream processors."""
LEARNERS = _named("learners")
"""What choosing, learning and tracing are measured against, and what our own packages need beside it."""


def figures_beside_peers(module: str) -> list[Figure]:
    """Run a module of the benchmarks in the learners' environment and return the figures that it prints.

    Raises
    ------
    SteersmanError
        When the environment cannot be made or the module fails.
    """
    command = LEARNERS.command(module)
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(command, check=False, cwd=_HERE.parent, env=env, stdout=subprocess.PIPE, text=True)  # noqa: S603
    if ran.returncode:
        raise SteersmanError(f"{module} ended with {ran.returncode}; its error is above")
    return read_figures(ran.stdout)


def read_figures(text: str) -> list[Figure]:
    """Figures from JSON, one a line; other lines are what a peer had to say.

    Raises
    ------
    ValueError
        When there is none.
    """
    figures = [Figure(**json.loads(line)) for line in text.splitlines() if line.startswith("{")]
    if not figures:
        raise ValueError(f"no figures in {text[-500:]!r}")
    return figures
