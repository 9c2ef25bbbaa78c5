"""Environments of their own for what we are measured against: made when they are missing, from a hashed lock."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Figure

_HERE = Path(__file__).parent
_STAMP = "lock.sha256"
LEARNERS = _HERE / ".venv-learners"
LEARNERS_LOCK = _HERE / "peers" / "requirements-learners.txt"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def python_of(folder: Path, lock: Path, run: Run = subprocess.run) -> Path:
    """Return an environment's interpreter, after making the environment if it is missing or of another lock.

    Parameters
    ----------
    folder
        Where the environment is.
    lock
        Requirements with hashes.
    run
        Replaces `subprocess.run`.

    Raises
    ------
    subprocess.CalledProcessError
        When it cannot be made.
    """
    python, stamp = folder / "bin" / "python", folder / _STAMP
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
        run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(lock)], check=True)
        stamp.write_text(wanted)
    return python


def figures_beside_peers(module: str) -> list[Figure]:
    """Run a module of the benchmarks in the learners' environment and return the figures that it prints.

    Raises
    ------
    subprocess.CalledProcessError
        When the environment cannot be made or the module fails.
    """
    ran = subprocess.run(  # noqa: S603  # a module of ours
        [str(python_of(LEARNERS, LEARNERS_LOCK)), "-m", module],
        check=True,
        cwd=_HERE.parent,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
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
