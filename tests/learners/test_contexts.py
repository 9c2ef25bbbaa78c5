"""The latest contexts are kept in order, and lie in a state where earlier releases look for the newest."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.contexts import Contexts

ROOM, NEWEST = 10, 4


def of(count: int) -> Contexts:
    made = Contexts(ROOM, NEWEST, 2)
    for i in range(count):
        made.add([float(i), 1.0])
    return made


@settings(max_examples=40, derandomize=True, deadline=None)
@given(before=st.integers(0, 35), after=st.integers(0, 25))
def test_the_latest_are_kept_in_order_over_a_restart(before: int, after: int) -> None:
    one, again = of(before), Contexts(ROOM, NEWEST, 2)
    again.load(before, one.dump(), one.older())
    for i in range(before, before + after):
        one.add([float(i), 1.0])
        again.add([float(i), 1.0])
    total = before + after
    assert one.all()[:, 0].tolist() == list(range(max(total - ROOM, 0), total))
    assert again.all().tolist() == one.all().tolist()
    assert (again.dump().tobytes(), again.older(), again.seen) == (one.dump().tobytes(), one.older(), total)


@settings(max_examples=20, derandomize=True, deadline=None)
@given(before=st.integers(0, 35), after=st.integers(0, 25))
def test_a_state_without_older_ones_fills_up(before: int, after: int) -> None:
    """A release that kept `NEWEST` wrote number n to row n modulo `NEWEST`."""
    ring = np.zeros((NEWEST, 2))
    for i in range(before):
        ring[i % NEWEST] = [float(i), 1.0]
    made = Contexts(ROOM, NEWEST, 2)
    made.load(before, ring.ravel())
    assert made.dump().tolist() == ring.ravel().tolist()
    for i in range(before, before + after):
        made.add([float(i), 1.0])
    total = before + after
    assert made.all()[:, 0].tolist() == list(range(max(total - ROOM, before - min(before, NEWEST)), total))


@pytest.mark.parametrize(
    "older",
    ["a", "!!!!", base64.b64encode(bytes(12)).decode(), base64.b64encode(np.full(2, np.nan, "<f4").tobytes()).decode(),
     base64.b64encode(bytes(8 * (ROOM - NEWEST + 1))).decode()],
)  # fmt: skip
def test_what_is_damaged_is_refused(older: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        of(0).load(35, of(35).dump(), older)
    broken = of(35).dump()
    broken[0] = np.inf
    with pytest.raises(ValueError, match="finite"):
        of(0).load(35, broken)
