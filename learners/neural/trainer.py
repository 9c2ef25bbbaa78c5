"""Where trainings run: in a process beside the worker, one at a time and with a time budget, or right here."""

from __future__ import annotations

import hashlib
import logging
import math
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
"""A training that takes longer is ended, unless the environment's STEERSMAN_TRAINING_BUDGET_S says otherwise; unit: seconds."""

_REMEMBERED = 8
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

    def end_none(self) -> None:
        """From now on let trainings take their time: what is made again has to come out as it did."""
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

    def end_none(self) -> None:
        """Nothing: none is ever ended."""


class _Inline:
    def __init__(self, job: Job) -> None:
        self._job = job

    def done(self) -> bool:
        return True

    def result(self) -> Tensors:
        from .train import train

        return train(self._job)


class BackgroundTrainer:
    """Trains in a process of its own, at low priority, one training at a time, and remembers the last few results.

    A rebuild makes state and snapshot from the same log, so the same trainings are asked for twice.

    Parameters
    ----------
    budget_s : float, optional
        Seconds after which a training is ended, counted from the start of its process; by default what the environment
        says, or `BUDGET_S`.
    """

    def __init__(self, budget_s: float | None = None) -> None:
        self._budget_s = budget_s
        self._one = threading.Lock()
        self._made: dict[bytes, Tensors] = {}

    def start(self, job: Job) -> Ticket:
        """Ask for a training."""
        return _Background(self, job)

    def end_none(self) -> None:
        """Drop the time budget."""
        self._budget_s = math.inf

    def train(self, job: Job) -> Tensors:
        """Train when the trainings asked for before are done; TrainingError when nothing comes of it."""
        with self._one:
            data = job.to_bytes()
            key = hashlib.sha256(data).digest()
            if key not in self._made:
                self._made[key] = self._train(data, job)
                for oldest in list(self._made)[:-_REMEMBERED]:
                    del self._made[oldest]
            return self._made[key]

    def _train(self, data: bytes, job: Job) -> Tensors:
        started = time.monotonic()
        budget_s = self._budget_s or float(os.environ.get("STEERSMAN_TRAINING_BUDGET_S", BUDGET_S))
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
        try:
            done = subprocess.run(
                [sys.executable, "-m", "learners.neural.train"],
                input=data,
                capture_output=True,
                timeout=budget_s if math.isfinite(budget_s) else None,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
                start_new_session=True,  # a Ctrl-C is for the worker
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TrainingError(f"it took longer than {budget_s:g} s") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
            raise TrainingError(f"it ended with {done.returncode} and said: {said[-1]}")
        log.info("an encoder was trained on %d rewards in %.1f s", len(job.x), time.monotonic() - started)
        return read_encoder(done.stdout, job.x.shape[1])


class _Background:
    def __init__(self, trainer: BackgroundTrainer, job: Job) -> None:
        self._finished = threading.Event()
        self._made: Tensors | TrainingError = TrainingError("it has not begun")
        threading.Thread(target=self._run, args=(trainer, job), name="steersman-training", daemon=True).start()

    def _run(self, trainer: BackgroundTrainer, job: Job) -> None:
        try:
            self._made = trainer.train(job)
        except TrainingError as error:
            self._made = error
        except Exception as error:  # no processes left, no memory: the learner goes on without
            self._made = TrainingError(f"{type(error).__name__}: {error}")
        finally:
            self._finished.set()

    def done(self) -> bool:
        return self._finished.is_set()

    def result(self) -> Tensors:
        self._finished.wait()
        if isinstance(self._made, TrainingError):
            raise self._made
        return self._made
