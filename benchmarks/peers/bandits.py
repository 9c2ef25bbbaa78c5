"""Contextual bandits of other libraries behind one interface: choose an arm for a context, learn what it earned."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Protocol

import numpy as np
import vowpalwabbit
from mabwiser.mab import MAB, LearningPolicy
from river import bandit

Row = tuple[Mapping[str, float], int, float]
"""Context, arm and reward."""


class Bandit(Protocol):
    """What is measured of each."""

    name: str

    def learn(self, rows: Sequence[Row]) -> None:
        """Learn from rows, the way the library takes them."""
        ...

    def choose(self, context: Mapping[str, float]) -> int:
        """Return the arm for a context."""
        ...


class River:
    """River's LinUCB, one regression per arm."""

    name = f"river {version('river')} LinUCBDisjoint"

    def __init__(self, n_arms: int) -> None:
        self._arms: list[int | str] = list(range(n_arms))
        self._policy = bandit.LinUCBDisjoint(seed=1)

    def learn(self, rows: Sequence[Row]) -> None:
        """Row by row: it has no batches."""
        for context, arm, reward in rows:
            self._policy.update(arm, context, reward)  # type: ignore[no-untyped-call]

    def choose(self, context: Mapping[str, float]) -> int:
        """Pull."""
        return int(self._policy.pull(self._arms, context=dict(context)))


class Mabwiser:
    """MABWiser's LinUCB, one regression per arm."""

    name = f"mabwiser {version('mabwiser')} LinUCB"

    def __init__(self, n_arms: int) -> None:
        self._mab = MAB(list(range(n_arms)), LearningPolicy.LinUCB(alpha=1.0))
        self._fitted = False

    def learn(self, rows: Sequence[Row]) -> None:
        """All rows at once."""
        contexts = np.array([list(context.values()) for context, _, _ in rows])
        learn = self._mab.partial_fit if self._fitted else self._mab.fit
        learn([arm for _, arm, _ in rows], [reward for _, _, reward in rows], contexts)
        self._fitted = True

    def choose(self, context: Mapping[str, float]) -> int:
        """Predict."""
        return int(self._mab.predict([list(context.values())]))


class VowpalWabbit:
    """Vowpal Wabbit's epsilon-greedy over one regression per arm, learned by gradient steps."""

    name = f"vowpalwabbit {version('vowpalwabbit')} --cb_explore"

    def __init__(self, n_arms: int) -> None:
        self._vw = vowpalwabbit.Workspace(f"--cb_explore {n_arms} --epsilon 0.05 --quiet")
        self._even = 1.0 / n_arms
        self._random = random.Random(1)  # noqa: S311  # draws arms, guards nothing

    def learn(self, rows: Sequence[Row]) -> None:
        """Row by row, as text: it has no batches."""
        for context, arm, reward in rows:
            self._vw.learn(f"{arm + 1}:{-reward:.6g}:{self._even:.6g} {_text(context)}")

    def choose(self, context: Mapping[str, float]) -> int:
        """Predict the probabilities, and draw."""
        chances = self._vw.predict(_text(context))
        return self._random.choices(range(len(chances)), chances)[0]


def _text(context: Mapping[str, float]) -> str:
    return "| " + " ".join(f"{name}:{value:.6g}" for name, value in context.items())


BANDITS = (River, Mabwiser, VowpalWabbit)
