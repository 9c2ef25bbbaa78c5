"""The code of the last release, beside this tree: extracted from git, run by its own interpreter process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMIT = (Path(__file__).parent / "RELEASED").read_text().strip()
"""Commit of the last release; a release writes its own here (CONTRIBUTING.md)."""
STAGES = Path(__file__).with_name("stages.py")


def released_tree(folder: Path) -> Path:
    """Extract the last release; the test is skipped where the repository's history does not reach that far."""
    known = subprocess.run(["git", "cat-file", "-e", COMMIT], cwd=ROOT, capture_output=True, check=False)
    if known.returncode:
        pytest.skip(f"commit {COMMIT[:12]} is not in this clone: git fetch --unshallow")
    folder.mkdir(exist_ok=True)
    archive = subprocess.run(["git", "archive", COMMIT], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder


def command(tree: Path, *module: str) -> list[str]:
    """Return the command that runs a module of a tree, wherever the process stands."""
    return ["env", f"PYTHONPATH={tree}", sys.executable, "-P", "-m", *module]


def stages(tree: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Ask the stages of a tree, see `tests.upgrade.stages`."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tree), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", str(STAGES)],
        input=json.dumps(asked), env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
