"""The contexts that came last, over which the prices of ceilings are solved for (`learners.pacing`)."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


class Contexts:
    """As many of the latest contexts as there is room for, in the order they came.

    The newest of them lie in a state where those of the releases before lay, which kept no more; the others are added
    beside. So either reads what the other wrote.

    Parameters
    ----------
    room : int
        How many are kept.
    newest : int
        How many of them `dump` gives; the others are `older`'s.
    dim : int
        Entries of a context.
    """

    def __init__(self, room: int, newest: int, dim: int) -> None:
        self._ring: NDArray[np.float32] = np.zeros((room, dim), dtype=np.float32)
        self._newest = newest
        self.seen = 0
        self._held = 0

    def add(self, x: Sequence[float]) -> None:
        """Take a context, (d,); it is kept as float32, as it was encoded."""
        self._ring[self.seen % len(self._ring)] = x
        self.seen += 1
        self._held = min(self._held + 1, len(self._ring))

    def all(self) -> Float:
        """All that are kept, float64 (n, d), the newest last."""
        return self._last(self._held, 0)

    @property
    def size(self) -> int:
        """Numbers that `dump` gives."""
        return self._newest * int(self._ring.shape[1])

    def _last(self, start: int, end: int) -> Float:
        """Those that are the last but `end`, from the last but `start` on."""
        numbers = np.arange(self.seen - start, self.seen - end)
        return self._ring[numbers % len(self._ring)].astype(np.float64)

    def dump(self) -> Float:
        """The newest, float64 flat: number n at row n modulo their number, zeros where there are none yet."""
        found = np.zeros((self._newest, self._ring.shape[1]))
        count = min(self._held, self._newest)
        found[np.arange(self.seen - count, self.seen) % self._newest] = self._last(count, 0)
        return found.ravel()

    def older(self) -> str:
        """Those before the newest: float32, little-endian, in base64."""
        kept = self._last(self._held, min(self._held, self._newest))
        return base64.b64encode(kept.astype("<f4").tobytes()).decode()

    def load(self, seen: int, numbers: Float, older: str = "") -> None:
        """Inverse of `dump` and `older`.

        Parameters
        ----------
        seen : int
            How many had come.
        numbers : float64 array
            What `dump` gave.
        older : str
            What `older` gave; empty in states of releases that kept none.

        Raises
        ------
        ValueError
            When the shapes differ, or a number is not finite.
        """
        dim = self._ring.shape[1]
        newest = numbers.reshape(self._newest, dim)
        before = np.frombuffer(base64.b64decode(older, validate=True), dtype="<f4").reshape(-1, dim)
        count = min(seen, self._newest)
        if count + len(before) > min(seen, len(self._ring)):
            raise ValueError(f"{len(before)} contexts beside the newest {count} of {seen} are more than are kept")
        if not (np.isfinite(newest).all() and np.isfinite(before).all()):
            raise ValueError("a context is not finite")
        self.seen, self._held = seen, count + len(before)
        at = np.arange(seen - count, seen)
        self._ring[at % len(self._ring)] = newest[at % self._newest]
        self._ring[np.arange(seen - self._held, seen - count) % len(self._ring)] = before
