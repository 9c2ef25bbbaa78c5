"""The peers' environment is made once per lock, and what its programs print is read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.environments import LEARNERS, STREAMING, Environment, read_figures
from benchmarks.measure import Figure
from steersman.errors import SteersmanError

ROOT = Path(__file__).resolve().parents[2]


class FakeRun:
    """Notes the commands; the first makes the folder, as `venv` does."""

    def __init__(self, fails: bool = False) -> None:
        self.commands: list[list[str]] = []
        self.fails = fails

    def __call__(self, command: list[str], *, check: bool) -> None:
        assert check
        self.commands.append(command)
        if "venv" in command:
            (Path(command[-1]) / "bin").mkdir(parents=True, exist_ok=True)
            (Path(command[-1]) / "bin" / "python").touch()
        elif self.fails:
            raise subprocess.CalledProcessError(1, command)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock.txt"
    path.write_text("one==1 --hash=sha256:00")
    return path


def test_an_environment_is_made_once_and_again_when_its_lock_changes(tmp_path: Path, lock: Path) -> None:
    run: Any = FakeRun()
    made = Environment(tmp_path / "env", lock)
    assert made.python(run) == tmp_path / "env" / "bin" / "python"
    assert [command[2] for command in run.commands] == ["venv", "pip"]
    assert "--require-hashes" in run.commands[1]
    assert run.commands[1][-1] == str(lock)
    made.python(run)
    assert len(run.commands) == 2
    lock.write_text("one==2 --hash=sha256:00")
    made.python(run)
    assert len(run.commands) == 4


def test_an_environment_that_could_not_be_filled_is_not_taken_for_one(tmp_path: Path, lock: Path) -> None:
    run: Any = FakeRun(fails=True)
    for _ in range(2):
        with pytest.raises(SteersmanError, match="env cannot be made"):
            Environment(tmp_path / "env", lock).python(run)
    assert len(run.commands) == 4


@pytest.mark.parametrize(
    ("environment", "packages"),
    [
        (LEARNERS, {"mabwiser", "opentelemetry-sdk", "river", "vowpalwabbit"}),
        (STREAMING, {"bytewax", "faust-streaming", "quixstreams"}),
    ],
)
def test_every_package_of_the_locks_is_pinned_and_hashed(environment: Environment, packages: set[str]) -> None:
    entries = environment.lock.read_text().replace("\\\n", " ").splitlines()
    assert {entry.split("==")[0] for entry in entries} >= packages
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)


def test_figures_are_read_from_among_other_lines() -> None:
    text = (
        'only_warn = 1\n{"system": "a", "metric": "b", "unit": "us", "median": 2, "min": 1, "max": 3, "repeats": 5}\n'
    )
    assert read_figures(text) == [Figure("a", "b", "us", 2, 1, 3, 5)]
    with pytest.raises(ValueError, match="no figures"):
        read_figures("Traceback")


_WITHOUT_THE_REST = """
import sys
from importlib.metadata import packages_distributions

locked = set(sys.argv[1].split())
known = packages_distributions()

class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in known and not any(found.lower().replace("_", "-") in locked for found in known[top]):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import benchmarks.evaluation.worker, benchmarks.stage_rate
"""


def test_what_is_ours_runs_with_what_the_learners_lock_has() -> None:
    locked = " ".join(re.findall(r"^([a-z0-9-]+)==", LEARNERS.lock.read_text(), re.MULTILINE))
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_THE_REST, locked], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
