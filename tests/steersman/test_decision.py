"""Decisions, however they are made."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError, fields

import pytest

from steersman.decision import Decision, decided
from steersman.events import Mode

ARGUMENTS = ({"model": "small"}, "model=small", 0.25, f"{1:032x}-{2:016x}", "p", 3, 4, Mode.LIVE, None, True)


def test_the_fast_way_makes_the_same_decision() -> None:
    made, slow = decided(*ARGUMENTS), Decision(*ARGUMENTS)
    assert type(made) is Decision
    assert made == slow
    assert repr(made) == repr(slow)
    assert copy.copy(made) == slow
    assert made.trace_id == f"{1:032x}"


@pytest.mark.parametrize("field", [field.name for field in fields(Decision)])
def test_nobody_changes_a_decision(field: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(decided(*ARGUMENTS), field, None)
