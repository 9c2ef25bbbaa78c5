"""How long fetches linger."""

from __future__ import annotations

import pytest

from streams.fetch_pace import FetchPace


def linger_at(rate: float, pace: FetchPace, *, start_s: float = 0.0, seconds: float = 5.0) -> int:
    """Let records come at a rate, 200 polls a second."""
    for poll in range(int(seconds * 200)):
        pace.add(round(rate / 200), start_s + poll / 200)
    return pace.linger_ms


@pytest.mark.parametrize(
    ("rate", "linger_ms"),
    [(0, 0), (1_000, 0), (4_000, 10), (5_000, 12), (10_000, 50), (12_000, 110), (15_000, 200), (400_000, 200)],
)
def test_a_fetch_lingers_the_longer_the_faster_records_come(rate: float, linger_ms: int) -> None:
    assert linger_at(rate, FetchPace(200)) == pytest.approx(linger_ms, abs=1)


def test_it_stops_lingering_when_records_stop() -> None:
    pace = FetchPace(100)
    assert linger_at(40_000, pace) == 100
    assert linger_at(0, pace, start_s=5.0, seconds=2.0) == 0


def test_one_long_batch_after_a_pause_is_no_rate() -> None:
    pace = FetchPace(100)
    pace.add(0, 0.0)
    pace.add(2_000, 100.0)
    assert pace.linger_ms == 0


def test_none_at_all_when_told_so() -> None:
    assert linger_at(100_000, FetchPace(0)) == 0
