"""Trains an encoder with torch; run as a process: ``python -m learners.neural.train < job > encoder``, both safetensors.

The network is x -> tanh -> tanh -> z, and above it the very model that the heads are (`steersman.layout`): each component
is linear in z with weights shared by all arms, weights of each level, and a constant for each pair of levels. All four
components are fitted at once, each divided by its deviation, by AdamW (I. Loshchilov, F. Hutter, ICLR 2019) with a one-cycle
learning rate (L. N. Smith, 2018). Only the network is kept; the Bayesian heads are solved from sums, as ever.
"""

from __future__ import annotations

import math
import os
import sys

import numpy as np
import torch
from safetensors.numpy import save

from learners.neural.job import Job, Tensors
from steersman.encoder import TENSORS

HIDDEN, WIDTH = 32, 16
"""Hidden units, and numbers z."""

_BATCH = 256
_RATE, _DECAY = 1e-2, 1e-3
_LEAST_DEVIATION = 0.1  # of a z before it is scaled: one that hardly varies must not be blown up


def train(job: Job) -> Tensors:
    """Train an encoder: the tensors of `steersman.encoder`. On a GPU where there is one, unless STEERSMAN_DEVICE says ``cpu``."""
    torch.set_num_threads(1)  # the sums of several threads come in any order
    torch.use_deterministic_algorithms(True)
    gpu = torch.cuda.is_available() and os.environ.get("STEERSMAN_DEVICE") != "cpu"
    device = torch.device("cuda" if gpu else "cpu")
    draws = torch.Generator().manual_seed(job.seed)
    n, dim = job.x.shape
    levels, pairs = job.level_of.shape[1], job.pair_of.shape[1]

    def parameter(*shape: int, deviation: float) -> torch.Tensor:
        return (torch.randn(*shape, generator=draws) * deviation).to(device).requires_grad_()

    first = parameter(HIDDEN, dim, deviation=1 / math.sqrt(dim))
    first_bias = parameter(HIDDEN, deviation=0.3)
    second = parameter(WIDTH, HIDDEN, deviation=1 / math.sqrt(HIDDEN))
    second_bias = parameter(WIDTH, deviation=0.1)
    shared = parameter(WIDTH + 1, 4, deviation=0.01)
    own = parameter(levels, (WIDTH + 1) * 4, deviation=0.01)
    crossed = parameter(max(pairs, 1), 4, deviation=0.01)

    x, y, weight = (torch.from_numpy(array).to(device) for array in (job.x, *_targets(job)))
    level_of = torch.from_numpy(job.level_of).to(device)[job.arms]
    pair_of = torch.from_numpy(job.pair_of if pairs else job.level_of[:, :1] * 0).to(device)[job.arms]

    def encode(rows: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(rows @ first.T + first_bias)
        return torch.tanh(hidden @ second.T + second_bias)

    parameters = [first, first_bias, second, second_bias, shared, own, crossed]
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=job.steps)
    for _ in range(job.steps):
        batch = torch.randint(n, (min(_BATCH, n),), generator=draws).to(device)
        z = encode(x[batch])
        z = torch.cat([z, torch.ones(len(z), 1, device=device)], dim=1)
        by_arm = (level_of[batch] @ own).reshape(len(z), WIDTH + 1, 4)
        guess = z @ shared + (z[:, :, None] * by_arm).sum(dim=1) + pair_of[batch] @ crossed
        loss = ((guess - y[batch]).square() * weight[batch]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        z = encode(x)
        shift, scale = z.mean(dim=0), 1.0 / z.std(dim=0).clamp(min=_LEAST_DEVIATION)
    made = (first, first_bias, second, second_bias, shift, scale)
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in zip(TENSORS, made, strict=True)}


def _targets(job: Job) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float32]], ...]:
    """Targets of mean 0 and deviation 1, and how much each counts: 0 for a quality that there is not."""
    weight = np.ones_like(job.y) * job.weights[:, None]
    weight[~job.rated, 0] = 0.0
    total = np.maximum(weight.sum(axis=0), 1.0)
    mean = (job.y * weight).sum(axis=0) / total
    deviation = np.sqrt((np.square(job.y - mean) * weight).sum(axis=0) / total)
    return ((job.y - mean) / np.maximum(deviation, 1e-6)).astype(np.float32), weight


def main() -> int:
    """Read a job, train, write the encoder; at low priority, for the worker comes first."""
    os.nice(10)
    job = Job.from_bytes(sys.stdin.buffer.read())
    sys.stdout.buffer.write(save(train(job)))
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
