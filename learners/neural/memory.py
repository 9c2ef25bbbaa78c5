"""What a neural learner remembers beside the linear one's sums, as safetensors: attached to the state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from learners.pending import Rows
from learners.spec import PolicySpec
from learners.state import StateError
from steersman.encoder import TENSORS, problem_of
from steersman.snapshot import HEADS

from .contest import Block
from .head import LatentHead
from .replay import Change, Replay

Float = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]


@dataclass
class Memory:
    """The parts of a `learners.neural.learner.NeuralLearner`, by the names it has for them; no training is -1.

    Raises
    ------
    StateError
        When bytes cannot be read.
    """

    clock: int
    began: tuple[int, int]
    block: int
    training: int
    head_at: tuple[int, int]
    abandoned: list[int]
    blocks: list[Block]
    linear_theta: Float | None
    head: LatentHead | None
    replay: Replay

    def to_bytes(self) -> bytes:
        """Equal values give equal bytes."""
        replay = self.replay
        numbers = [self.clock, *self.began, self.block, self.training, *self.head_at, replay.first]
        arrays: Arrays = {
            "numbers": np.array(numbers, dtype=np.int64),
            "abandoned": np.array(self.abandoned, dtype=np.int64),
            "blocks": np.array([(b.start, b.end, b.asked, b.each is not None) for b in self.blocks], dtype=np.int64),
            "block.sums": np.array([b.sums for b in self.blocks]).reshape(-1, 3, 4),
        }
        kept = [b.each for b in self.blocks if b.each is not None]
        arrays["block.each"] = np.concatenate(kept) if kept else np.zeros((0, 4))
        rows_held = replay.rows(replay.first, replay.end)
        arrays |= {f"replay.{name}": array for name, array in rows_held._asdict().items()}
        arrays["changes"] = np.array([(change.number, change.priced) for change in replay.changes], dtype=np.int64)
        arrays["change.factors"] = np.array([change.factors for change in replay.changes], dtype=np.float64)
        if self.linear_theta is not None:
            arrays["linear.theta"] = self.linear_theta
        if self.head is not None and self.head.theta is not None:
            moments = self.head.linear.moments
            rows = moments.occupied()
            arrays["head.rows"] = np.array(rows, dtype=np.int64)
            arrays["head.sums"] = moments.sums.reshape(-1, moments.width)[rows]
            arrays["head.theta"] = self.head.theta
            arrays |= self.head.tensors
        return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    @classmethod
    def from_bytes(cls, data: bytes, spec: PolicySpec) -> Self:
        """Inverse of `to_bytes`."""
        try:
            return cls._read(load(data), spec)
        except (SafetensorError, KeyError, ValueError, IndexError) as error:
            raise StateError(f"the neural learner's part of the state cannot be read: {error}") from error

    @classmethod
    def _read(cls, arrays: Arrays, spec: PolicySpec) -> Self:
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{name} is not finite")
        clock, began, began_clock, block, training, head_from, head_since, first = map(int, arrays["numbers"])
        blocks, used = [], 0
        for (start, end, asked, kept), sums in zip(
            arrays["blocks"].reshape(-1, 4).tolist(), arrays["block.sums"], strict=True
        ):
            each = arrays["block.each"][used : used + (end - start) * kept] if kept else None
            used += (end - start) * kept
            blocks.append(Block(start, end, each, sums, bool(asked)))
        return cls(
            clock,
            (began, began_clock),
            block,
            training,
            (head_from, head_since),
            [int(number) for number in arrays["abandoned"]],
            blocks,
            arrays.get("linear.theta"),
            _head(arrays, spec) if "head.theta" in arrays else None,
            _replay(arrays, spec, first),
        )


def _replay(arrays: Arrays, spec: PolicySpec, first: int) -> Replay:
    held = [arrays[f"replay.{name}"] for name in Rows._fields]
    rows = Rows(*held)
    n, n_arms = len(rows.arms), len(spec.arms)
    shapes = ((n, spec.features.dim), (n, len(HEADS)), (n,), (n,), (n,))
    if any(array.shape != shape for array, shape in zip(held, shapes, strict=True)):
        raise ValueError("the replay buffer's arrays are of the wrong shape")
    if [array.dtype.str[1:] for array in held] != ["f4", "f4", "i8", "b1", "f4"]:
        raise ValueError("the replay buffer's arrays are of another type")
    if first < 0 or ((rows.arms < 0) | (rows.arms >= n_arms)).any():
        raise ValueError("the replay buffer holds rewards of arms that there are not")
    replay = Replay(spec.features.dim)
    replay.first = first
    replay.add(rows)
    changes, factors = arrays["changes"].reshape(-1, 2).tolist(), arrays["change.factors"].reshape(-1, n_arms)
    replay.changes = [Change(at, bool(priced), each) for (at, priced), each in zip(changes, factors, strict=True)]
    return replay


def _head(arrays: Arrays, spec: PolicySpec) -> LatentHead:
    if problem := problem_of(arrays, spec.features.dim):
        raise ValueError(problem)
    head = LatentHead(spec, {name: arrays[name] for name in TENSORS})
    moments = head.linear.moments
    moments.sums.reshape(-1, moments.width)[arrays["head.rows"]] = arrays["head.sums"]
    head.theta = arrays["head.theta"]
    return head
