"""Where trainings run: in a process beside the worker, one at a time and with a time budget, or right here."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Protocol

from .job import Job, Tensors, TrainingError, read_encoder

log = logging.getLogger("steersman.learners")

BUDGET_S = 60.0
"""A training that takes longer is ended."""

_ROOT = Path(__file__).resolve().parents[2]


class Ticket(Protocol):
    """A training that has been asked for."""

    def done(self) -> bool:
        """Whether `result` would return, or raise, at once."""
        ...

    def result(self) -> Tensors:
        """Wait for the encoder's tensors; TrainingError when there are none."""
        ...


class Trainer(Protocol):
    """Trains encoders."""

    def start(self, job: Job) -> Ticket:
        """Ask for a training."""
        ...


class Abandoned:
    """The ticket of a training that is known to have come to nothing."""

    def done(self) -> bool:
        """Always."""
        return True

    def result(self) -> Tensors:
        """Raise TrainingError."""
        raise TrainingError("so it was before")


class InlineTrainer:
    """Trains in this process when the result is asked for: for tests, benchmarks and offline runs."""

    def start(self, job: Job) -> Ticket:
        """Ask for a training."""
        return _Inline(job)


class _Inline:
    def __init__(self, job: Job) -> None:
        self._job = job

    def done(self) -> bool:
        return True

    def result(self) -> Tensors:
        from .train import train

        return train(self._job)


class BackgroundTrainer:
    """Trains in a process of its own, at low priority, one training at a time.

    Parameters
    ----------
    budget_s : float
        Seconds after which a training is ended; it begins to count when the process starts.
    """

    def __init__(self, budget_s: float = BUDGET_S) -> None:
        self._budget_s = budget_s
        self._one = threading.Lock()

    def start(self, job: Job) -> Ticket:
        """Ask for a training."""
        return _Background(job, self._one, self._budget_s)


class _Background:
    def __init__(self, job: Job, one: threading.Lock, budget_s: float) -> None:
        self._dim = job.x.shape[1]
        self._budget_s = budget_s
        self._finished = threading.Event()
        self._made: Tensors | TrainingError = TrainingError("it has not begun")
        threading.Thread(target=self._run, args=(job, one), name="steersman-training", daemon=True).start()

    def _run(self, job: Job, one: threading.Lock) -> None:
        try:
            with one:
                self._made = self._train(job)
        except TrainingError as error:
            self._made = error
        except Exception as error:  # no processes left, no memory: the learner goes on without
            self._made = TrainingError(f"{type(error).__name__}: {error}")
        finally:
            self._finished.set()

    def _train(self, job: Job) -> Tensors:
        started = time.monotonic()
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
        try:
            done = subprocess.run(
                [sys.executable, "-m", "learners.neural.train"],
                input=job.to_bytes(),
                capture_output=True,
                timeout=self._budget_s,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
                start_new_session=True,  # a Ctrl-C is for the worker
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TrainingError(f"it took longer than {self._budget_s:g} s") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
            raise TrainingError(f"it ended with {done.returncode} and said: {said[-1]}")
        log.info("an encoder was trained on %d rewards in %.1f s", len(job.x), time.monotonic() - started)
        return read_encoder(done.stdout, self._dim)

    def done(self) -> bool:
        return self._finished.is_set()

    def result(self) -> Tensors:
        self._finished.wait()
        if isinstance(self._made, TrainingError):
            raise self._made
        return self._made
