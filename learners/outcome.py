"""What became of acts: those that took effect, as a learner's state keeps them, and the answers to all of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .acts import Pin, Standing, effect, pin_of


class Obeyed(NamedTuple):
    """An act that took effect.

    Attributes
    ----------
    version : int
        Rewards applied before.
    turns : int
        Changes of the guard's settings before it.
    act, why : str
        What, and who wanted it why.
    ts : int
        When it was asked for; unit: microseconds since 1970-01-01 UTC.
    pin : mapping or None
        What is pinned, JSON-ready.
    guarded : bool
        Whether there was a guard.
    """

    version: int
    turns: int
    act: str
    why: str
    ts: int
    pin: Mapping[str, Any] | None
    guarded: bool


@dataclass(frozen=True)
class Outcome:
    """What became of an act.

    Attributes
    ----------
    act_id, act, who, why : str
        As asked.
    ts : int
        As asked; unit: microseconds since 1970-01-01 UTC.
    aim : tuple of int
        Epoch and version that it was to go back to; -1 for none.
    reason : str
        Why it was refused; empty when it was obeyed.
    epoch, version : int
        Where the learner was.
    standing : str
        How the policy stands since.
    """

    act_id: str
    act: str
    who: str
    why: str
    ts: int
    aim: tuple[int, int]
    reason: str
    epoch: int
    version: int
    standing: str


def stands_after(standing: Standing, one: Obeyed) -> Standing:
    """How a policy stands after an act that took effect."""
    return effect(standing, one.act, _pin(one), guarded=one.guarded)


def _pin(one: Obeyed) -> Pin | None:
    return None if one.pin is None else pin_of(one.pin)
