"""What training an encoder costs on each device there is: CPU always, a GPU where torch sees one; and that it is the same encoder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import Figure, spread
from learners.neural.job import Job, Tensors
from learners.neural.train import train
from steersman.encoder import TENSORS, Encoder
from steersman.errors import SteersmanError

PAYLOAD = (
    "one training of 600 steps of 256 rewards, as a worker asks for it, on rewards whose quality is a product of features; the same "
    "job twice. Explained is the share of the noiseless quality's variance that a linear fit on z explains (on x: 0)"
)
VERSIONS = {name: version(name) for name in ("torch", "safetensors")}
SHAPES = ((16, 8, 4096), (36, 8, 4096), (32, 162, 4096))
"""Length of x, arms, rewards."""
STEPS, REPEATS = 600, 3
_ALLOWED = 1e-5
"""Between torch on the device and numpy in the router, of z."""


def figures() -> Iterator[Figure]:
    """Seconds a training, and what its encoder explains."""
    for dim, arms, rewards in SHAPES:
        shape = f"x of {dim}, {arms} arms"
        job, truth = job_of(dim, arms, rewards)
        for device, name in _devices():
            with _only(device):
                times, made = [], train(job)
                for _ in range(REPEATS):
                    began = time.perf_counter()
                    again = train(job)
                    times.append(time.perf_counter() - began)
                    if any((made[key] != again[key]).any() for key in TENSORS):
                        raise SteersmanError(f"{name}: the same job gave other bits")
            yield Figure(name, f"training, {shape}", "s", *spread(times), REPEATS)
            z = np.array([Encoder(made)(row) for row in job.x])
            off = float(np.abs(z[:, :-1] - _with_torch(made, job, device)).max())
            if off > _ALLOWED:
                raise SteersmanError(f"{name}: numpy and torch differ by {off:.1e}")
            off = float(f"{off:.2g}")
            yield Figure(name, f"numpy against torch, {shape}", "of z", off, off, off, 1)
            guess = z @ np.linalg.lstsq(z, truth, rcond=None)[0]
            share = 100.0 * (1.0 - float(np.square(truth - guess).sum() / np.square(truth - truth.mean()).sum()))
            yield Figure(name, f"explained, {shape}", "%", *spread([share]), 1)


def job_of(dim: int, arms: int, rewards: int, seed: int = 1) -> tuple[Job, NDArray[np.float64]]:
    """Make a job of random contexts and arms, and the noiseless quality of each reward: a product of two features, shape (rewards,)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, (rewards, dim)).astype(np.float32)
    x[:, -1] = 1.0
    truth = x[:, 0].astype(np.float64) * x[:, 1].astype(np.float64)
    chosen = rng.integers(arms, size=rewards)
    y = np.stack([truth + 0.1 * rng.standard_normal(rewards), chosen / arms, x[:, 2], np.zeros(rewards)], axis=1)
    ones = np.ones(rewards)
    level_of, no_pairs = np.eye(arms, dtype=np.float32), np.zeros((arms, 0), np.float32)
    made = Job(x, y.astype(np.float32), chosen, ones > 0, ones.astype(np.float32), level_of, no_pairs, seed, STEPS)
    return made, truth


def _devices() -> list[tuple[str, str]]:
    found = [("cpu", "CPU, one thread")]
    if torch.cuda.is_available():
        found.append(("cuda", torch.cuda.get_device_name()))
    return found


@contextlib.contextmanager
def _only(device: str) -> Iterator[None]:
    """Have `train` use the device."""
    before = os.environ.pop("STEERSMAN_DEVICE", None)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if device == "cpu":
        os.environ["STEERSMAN_DEVICE"] = "cpu"
    try:
        yield
    finally:
        os.environ.pop("STEERSMAN_DEVICE", None)
        if before is not None:
            os.environ["STEERSMAN_DEVICE"] = before


def _with_torch(made: Tensors, job: Job, device: str) -> NDArray[np.float32]:
    """Encode all contexts on the device."""
    first, first_bias, second, second_bias, shift, scale = (torch.from_numpy(made[name]).to(device) for name in TENSORS)
    hidden = torch.tanh(torch.from_numpy(job.x).to(device) @ first.T + first_bias)
    found = (torch.tanh(hidden @ second.T + second_bias) - shift) * scale
    return np.asarray(found.cpu().numpy())
