"""Progressive validation of two models: each is asked about rewards that it has not learned from yet.

Rewards come in blocks. Both models are solved when a block begins, and judged by their squared errors on it. Kept per
block and component are the sums of both models' squared errors and of the squared differences between them: enough for a
mean difference of the utility's error with its standard error, whatever the weights are when somebody asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.pending import Rows

Float = NDArray[np.float64]

MAX_BLOCKS = 32
"""Blocks looked back on."""

SURE = 1.0
"""Standard errors by which the new model's loss must be lower."""


def block_length(version: int) -> int:
    """Rewards of the block that begins after so many: each takes two solutions, which change less and less."""
    return max(64, version // 16)


@dataclass
class Block:
    """A block of rewards.

    Attributes
    ----------
    start, end : int
        Numbers of its first reward and of the first one after it.
    each : float64 array (end - start, 4), or None
        The linear model's squared errors, reward by reward, kept while a model may yet be compared with it.
    sums : float64 array (3, 4)
        Per component: sums of squared errors of the linear and of the neural model, and of the squares of (the linear
        model's squared error - the neural model's). Zeros where the neural model has not been asked.
    asked : bool
        Whether it has.
    """

    start: int
    end: int
    each: Float | None
    sums: Float = field(default_factory=lambda: np.zeros((3, 4)))
    asked: bool = False

    def compare(self, neural: Float) -> None:
        """Take the neural model's squared errors, (end - start, 4)."""
        if self.each is None:
            raise ValueError("the linear model's errors are no longer known")
        self.sums = np.stack([self.each.sum(axis=0), neural.sum(axis=0), np.square(self.each - neural).sum(axis=0)])
        self.asked = True


class Verdict(NamedTuple):
    """How the two models compare.

    Attributes
    ----------
    rewards : int
        How many both were asked about.
    linear, neural : float
        Mean squared error of the predicted utility, errors of different components taken for independent.
    better : bool
        Whether the neural model's is lower by more than `SURE` standard errors.
    """

    rewards: int
    linear: float
    neural: float
    better: bool


def judge(blocks: list[Block], factors: Float) -> Verdict:
    """Compare the models over the blocks for which both were asked.

    Parameters
    ----------
    blocks : list of Block
    factors : float64 array (4,)
        Weight of each component in the utility.
    """
    known = [block for block in blocks if block.asked]
    n = sum(block.end - block.start for block in known)
    if not n:
        return Verdict(0, 0.0, 0.0, False)
    total = np.sum([block.sums for block in known], axis=0)
    squared = factors * factors
    linear, neural, spread = float(squared @ total[0]), float(squared @ total[1]), float(squared * squared @ total[2])
    return Verdict(n, linear / n, neural / n, linear - neural > SURE * spread**0.5)


def squared_errors(guess: Float, rows: Rows) -> Float:
    """Squared errors, float64 (N, 4), each times what its reward counts; 0 for a quality that there is not."""
    errors: Float = np.square(guess - rows.y) * rows.weights[:, None]
    errors[~rows.rated, 0] = 0.0
    return errors
