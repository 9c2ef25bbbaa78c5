"""Runs, what is kept of them, and the processes that make them: an evaluation that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.environments import LEARNERS
from benchmarks.evaluation.play import Played
from examples.replay.dataset import DEFAULT
from steersman.errors import SteersmanError

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".steersman" / "evaluation" / "runs.jsonl"
"""Every run made so far, one a line."""

DELAY = 100
CONDITIONS = ("plain", "delay", "drift")
"""As recorded; every outcome shown 100 decisions late; best and middle arm trade places half-way."""

_GAME = (
    "benchmarks/evaluation/play.py",
    "benchmarks/evaluation/scenario.py",
    "benchmarks/evaluation/sets.py",
    "examples/replay/dataset.py",
    "examples/replay/policy.py",
    "steersman/features.py",
)
_FLEET = ("examples/fleet/world.py", "examples/fleet/query.py", "policies.toml")
_SIMULATED = ("benchmarks/evaluation/simulated.py",)
_PEERS = ("benchmarks/peers/routing.py", "benchmarks/peers/requirements-learners.txt")
_OURS = (
    "benchmarks/evaluation/ours.py",
    "steersman/scoring.py",
    "steersman/exploration.py",
    "steersman/layout.py",
    "steersman/arms.py",
)


@dataclass(frozen=True)
class Run:
    """One learner in one order of one scenario.

    Attributes
    ----------
    scenario, source
        Name, and what it is read from.
    condition
        One of `CONDITIONS`.
    learner
        Name.
    order, seed
        Which shuffled order, the same for all learners, and which of the learner's own draws in it.
    """

    scenario: str
    source: str
    condition: str
    learner: str
    order: int
    seed: int

    @property
    def key(self) -> str:
        """What the run depends on: names, seeds, the data, and the code of game and learner."""
        code = _PEERS if is_peer(self.learner) else (*_OURS, *_learner_files())
        made = {"fleet": _FLEET, "simulated": _SIMULATED}.get(self.source)
        data = _digest(*made) if made else _digest_of_data(self.source)
        where = [self.scenario, self.condition, self.learner, self.order, self.seed]
        return json.dumps([*where, data, _digest(*_GAME, *code)])


def is_peer(learner: str) -> bool:
    """Whether a learner is not of our catalog (with or without the components)."""
    from learners.catalog import LEARNERS as OURS  # here: the names alone must not import what the catalog may need

    return learner.partition(SCALAR)[0].partition(":")[0] not in OURS


SCALAR = ", scalar"
"""At the end of the name of a learner of ours that sees what the peers see: the utility as one number."""


@cache
def _digest(*files: str) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update((ROOT / file).read_bytes())
    return digest.hexdigest()[:16]


def _learner_files() -> Sequence[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "learners").rglob("*.py"))


@cache
def _digest_of_data(source: str) -> str:
    return _digest("requirements/data.txt") if source == DEFAULT else _digest(str(Path(source).resolve()))


class Store:
    """The runs made so far, in a file that only grows.

    Parameters
    ----------
    path
        Of the file.
    """

    def __init__(self, path: Path = KEPT) -> None:
        self.path = path
        self._held: dict[str, Played] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    kept = json.loads(line)
                    self._held[kept["key"]] = Played(**kept["played"])
                except (ValueError, KeyError, TypeError):
                    continue  # cut off when it was stopped, or of another version of this program

    def get(self, run: Run) -> Played | None:
        """What came of a run, None when it has not been made."""
        return self._held.get(run.key)

    def add(self, run: Run, played: Played) -> None:
        """Keep a run."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"key": run.key, "played": asdict(played)}) + "\n")
        self._held[run.key] = played


def make(runs: Sequence[Run], jobs: int, done: Callable[[Run, Played], None]) -> None:
    """Make runs in processes, of the peers' environment where one of them plays, and hand over each as it comes.

    Raises
    ------
    SteersmanError
        When a process fails; what it had to say is on standard error.
    """
    worker = "benchmarks.evaluation.worker"
    peers = any(is_peer(run.learner) for run in runs)
    command = LEARNERS.command(worker) if peers else [sys.executable, "-m", worker]
    # Arithmetic on one thread, and no part in a Ctrl-C, which is this process's to answer.
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    todo = iter(runs)
    workers: dict[subprocess.Popen[str], Run] = {}
    with selectors.DefaultSelector() as ready:
        try:
            for _ in range(min(jobs, len(runs))):
                process = subprocess.Popen(  # noqa: S603
                    command,
                    cwd=ROOT,
                    env=env,
                    text=True,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                )
                ready.register(_out(process), selectors.EVENT_READ, process)
                _next(process, todo, workers)
            while workers:
                for key, _ in ready.select():
                    process = key.data
                    line = _out(process).readline()
                    if not line:
                        raise SteersmanError(f"a run failed ({workers[process]}); its error is above")
                    run = workers.pop(process)
                    done(run, Played(**json.loads(line)))
                    if not _next(process, todo, workers):
                        ready.unregister(_out(process))
                        process.communicate()
        finally:
            for process in workers:
                process.send_signal(signal.SIGTERM)
            for process in workers:
                process.wait()


def _out(process: subprocess.Popen[str]) -> Any:
    return process.stdout


def _next(process: subprocess.Popen[str], todo: Iterator[Run], workers: dict[subprocess.Popen[str], Run]) -> bool:
    run = next(todo, None)
    if run is None or process.stdin is None:
        return False
    workers[process] = run
    process.stdin.write(json.dumps(asdict(run)) + "\n")
    process.stdin.flush()
    return True
