"""When to kill which process: drawn from a seed, so that every system meets the same faults."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PickVictim = Callable[[int], int]
"""Number of candidates -> index of the one to kill."""


@dataclass(frozen=True)
class KillSchedule:
    """A seeded series of kills.

    Parameters
    ----------
    seed
        Equal parameters give an equal series.
    kills
        How many.
    min_gap_s, max_gap_s
        Bounds of the uniform time between two kills, and before the first; unit: seconds.
    """

    seed: int
    kills: int
    min_gap_s: float
    max_gap_s: float

    def __post_init__(self) -> None:
        if self.kills < 0 or not 0 <= self.min_gap_s <= self.max_gap_s:
            raise ValueError(f"kills must be >= 0 and 0 <= min_gap_s <= max_gap_s, not {self}")

    def gaps(self) -> Iterator[tuple[float, PickVictim]]:
        """Yield, per kill, the seconds to wait before it and how to pick the victim, uniformly."""
        rng = random.Random(self.seed)  # noqa: S311  (a reproducible schedule, no secret)
        for _ in range(self.kills):
            # Both drawn here: how many candidates there are, or whether one is picked at all, moves no later kill.
            yield rng.uniform(self.min_gap_s, self.max_gap_s), _picker(rng.random())

    @property
    def total_s(self) -> float:
        """Time of the last kill; unit: seconds."""
        return sum(gap for gap, _ in self.gaps())


def _picker(draw: float) -> PickVictim:
    def pick(candidates: int) -> int:
        if candidates < 1:
            raise ValueError("there is nothing to kill")
        return int(draw * candidates)

    return pick
