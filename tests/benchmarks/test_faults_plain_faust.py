"""The comparison with plain Faust: equal seeds give equal faults, and what is lost or doubled is counted right."""

from __future__ import annotations

import pytest

from benchmarks.counting_job import COUNTERS, PARTITIONS, Comparison, compare, expected_counts, make_events
from benchmarks.kill_schedule import KillSchedule


def drawn(schedule: KillSchedule, candidates: int) -> list[tuple[float, int]]:
    return [(gap, pick(candidates)) for gap, pick in schedule.gaps()]


def test_a_schedule_is_its_seed() -> None:
    schedule = KillSchedule(seed=7, kills=200, min_gap_s=2.0, max_gap_s=4.0)
    kills = drawn(schedule, 3)
    assert kills == drawn(KillSchedule(7, 200, 2.0, 4.0), 3)
    assert kills != drawn(KillSchedule(8, 200, 2.0, 4.0), 3)
    assert len(kills) == 200
    assert all(2.0 <= gap <= 4.0 for gap, _ in kills)
    assert {victim for _, victim in kills} == {0, 1, 2}
    assert schedule.total_s == pytest.approx(sum(gap for gap, _ in kills))


def test_the_number_of_candidates_moves_no_kill() -> None:
    schedule = KillSchedule(seed=1, kills=50, min_gap_s=0.5, max_gap_s=9.0)
    assert [gap for gap, _ in drawn(schedule, 5)] == [gap for gap, _ in schedule.gaps()]
    assert {victim for _, victim in drawn(schedule, 1)} == {0}


@pytest.mark.parametrize("bounds", [(-1, 1.0, 2.0), (1, -1.0, 2.0), (1, 2.0, 1.0)])
def test_an_impossible_schedule_is_refused(bounds: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="min_gap_s"):
        KillSchedule(0, *bounds)


def test_nothing_left_to_kill_is_an_error() -> None:
    ((_, pick),) = KillSchedule(0, 1, 0.0, 0.0).gaps()
    with pytest.raises(ValueError, match="nothing to kill"):
        pick(0)


def test_expected_counts_are_those_of_the_events() -> None:
    events = list(make_events(3, 5000))
    assert events == list(make_events(3, 5000))
    expected = expected_counts(3, 5000)
    assert len(expected) == COUNTERS
    assert sum(count for count, _ in expected.values()) == 5000
    assert sum(total for _, total in expected.values()) == sum(event.value for event in events)
    homes = {(event.counter, event.partition) for event in events}
    assert len(homes) == COUNTERS
    assert {partition for _, partition in homes} == set(range(PARTITIONS))


def test_lost_and_doubled_are_summed_apart() -> None:
    expected = {"a": (10, 100), "b": (5, 50), "c": (3, 30), "d": (2, 20)}
    assert compare(expected, expected) == Comparison(counted=20, lost=0, doubled=0, wrong_sums=0)
    counted = {"a": (7, 70), "b": (9, 90), "d": (2, 21), "e": (1, 4)}
    # a lost 3, c lost 3; b has 4 too many and e 1; a, b, c, d and e have wrong sums, d by a swap within it.
    assert compare(expected, counted) == Comparison(counted=19, lost=6, doubled=5, wrong_sums=5)
    assert compare(expected, {}) == Comparison(counted=0, lost=20, doubled=0, wrong_sums=4)
