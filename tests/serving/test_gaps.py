"""Records that a fetch passed over are asked for again, and given up in the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.gaps import TRIES, Gaps


def test_a_log_without_gaps_is_taken_whole() -> None:
    gaps: Gaps[str] = Gaps()
    assert gaps.take("p", [7, 8, 9]) == (3, None)
    assert gaps.take("p", [10]) == (1, None)
    assert gaps.take("p", [9, 10, 11]) == (3, None)  # repeats
    assert gaps.take("q", [100]) == (1, None)


def test_what_was_passed_over_is_read_again() -> None:
    gaps: Gaps[str] = Gaps()
    assert gaps.take("p", [0, 1, 5, 6]) == (2, 2)
    assert gaps.take("p", [5, 6]) == (0, 2)
    assert gaps.take("p", [2, 3, 4, 5]) == (4, None)
    assert gaps.take("p", [8]) == (0, 6)


def test_what_stays_away_is_given_up() -> None:
    gaps: Gaps[str] = Gaps()
    gaps.seek("p", 0)
    for _ in range(TRIES):
        assert gaps.take("p", [4, 5]) == (0, 0)
    assert gaps.take("p", [4, 5]) == (2, None)
    assert gaps.take("p", [9]) == (0, 6), "the next gap has tries of its own"


def test_a_seek_is_no_gap_and_another_owner_begins_anew() -> None:
    gaps: Gaps[str] = Gaps()
    gaps.take("p", [0, 1])
    gaps.seek("p", 50)
    assert gaps.take("p", [50]) == (1, None)
    gaps.forget(["p", "q"])
    assert gaps.take("p", [900]) == (1, None)


@given(st.data())
def test_a_broker_that_shows_records_late_loses_none(data: st.DataObject) -> None:
    """Runs of records, of which some are not shown for as many fetches as are tried, but for the last."""
    length, late = 30, data.draw(st.dictionaries(st.integers(1, 29), st.integers(1, TRIES - 1), max_size=8))
    gaps: Gaps[int] = Gaps()
    gaps.seek(0, 0)
    position, read = 0, list[int]()
    while position < length:
        shown = [offset for offset in range(position, length) if not late.get(offset)]
        run = shown[: data.draw(st.integers(1, 10))]
        asked = late.pop(position, 0)  # each fetch from there is one that it misses
        if asked > 1:
            late[position] = asked - 1
        if not run:
            continue
        taken, again = gaps.take(0, run)
        read += run[:taken]
        position = run[-1] + 1 if again is None else again
    assert read == list(range(length))
