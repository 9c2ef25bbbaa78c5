"""What a training needs and what comes of it, as safetensors: the only bytes that go to the training process and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from steersman.encoder import TENSORS, problem_of

Tensors = dict[str, NDArray[np.float32]]


class TrainingError(Exception):
    """A training that came to nothing: it failed, took too long, or made no usable encoder."""


@dataclass(frozen=True, eq=False)
class Job:
    """A training, of which the result is a function: the same job gives the same bits on the same kind of processor.

    Attributes
    ----------
    x : float32 array (n, d)
        Encoded contexts of the rewards.
    y : float32 array (n, 4)
        Targets in the order of `steersman.snapshot.HEADS`; quality 0 where there is none.
    arms : int64 array (n,)
    rated : bool array (n,)
        Whether there is a quality.
    weights : float32 array (n,)
        What each reward counts.
    level_of : float32 array (K, L)
    pair_of : float32 array (K, P)
        Which levels, and pairs of levels, an arm has: `steersman.layout.Layout`.
    seed, steps : int
        Of the random numbers; gradient steps.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    arms: NDArray[np.int64]
    rated: NDArray[np.bool_]
    weights: NDArray[np.float32]
    level_of: NDArray[np.float32]
    pair_of: NDArray[np.float32]
    seed: int
    steps: int

    def to_bytes(self) -> bytes:
        """The job as safetensors."""
        numbers = np.array([self.seed, self.steps], dtype=np.int64)
        arrays = {"x": self.x, "y": self.y, "arms": self.arms, "rated": self.rated, "numbers": numbers}
        arrays |= {"weights": self.weights, "level_of": self.level_of, "pair_of": self.pair_of}
        return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of `to_bytes`."""
        arrays = load(data)
        seed, steps = (int(number) for number in arrays.pop("numbers"))
        return cls(**arrays, seed=seed, steps=steps)


def read_encoder(data: bytes, dim: int) -> Tensors:
    """The encoder in what a training has written, checked; TrainingError when it is none for an x of length `dim`."""
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise TrainingError(f"what it wrote is no safetensors ({error})") from error
    if problem := problem_of(tensors, dim):
        raise TrainingError(f"it made no usable encoder: {problem}")
    return {name: tensors[name] for name in TENSORS}
