"""Alive is progress; ready is nothing known that is in the way."""

from __future__ import annotations

from serving.health import Health


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def bench() -> tuple[Health, Clock]:
    clock = Clock()
    return Health(stall_s=60, monotonic_s=clock), clock


def test_idle_is_alive_and_lag_without_commits_is_not() -> None:
    health, clock = bench()
    for _ in range(100):  # nothing waits
        clock.now += 10
        health.beat(lag=0, done=7)
        assert health.dead() == []
    for _ in range(7):  # something does, and nothing moves
        clock.now += 10
        health.beat(lag=5, done=7)
    assert health.dead() == []
    clock.now += 10
    health.beat(lag=9, done=7)
    assert health.dead() == ["9 records wait, and none was committed for 70 s"]
    assert health.unready() == health.dead()
    health.beat(lag=9, done=8)
    assert health.dead() == []


def test_a_late_first_look_at_lag_is_no_stall() -> None:
    health, clock = bench()
    health.beat(lag=0, done=1)
    clock.now += 59
    health.beat(lag=10, done=1)
    clock.now += 59
    assert health.dead() == []


def test_slow_work_is_alive() -> None:
    health, clock = bench()
    for done in range(100):
        clock.now += 50
        health.beat(lag=1000, done=done)
        assert health.dead() == []


def test_a_loop_that_stands_still_is_dead_even_without_lag() -> None:
    health, clock = bench()
    health.beat(lag=0, done=1)
    clock.now += 61
    assert health.dead() == ["its loop has not run for 61 s"]


def test_each_of_several_loops_has_to_run() -> None:
    health, clock = bench()
    health.tick("http")
    for _ in range(7):
        clock.now += 10
        health.beat(lag=0, done=1)
    assert health.dead() == ["its http loop has not run for 70 s"]


def test_an_outage_elsewhere_is_not_its_death() -> None:
    health, clock = bench()
    health.check(lambda: "ClickHouse is away")
    health.check(lambda: None)
    for _ in range(20):
        clock.now += 10
        health.beat(lag=5, done=1, outage=True)
    assert health.dead() == []
    assert health.unready() == ["ClickHouse is away"]
    for _ in range(7):  # it is back, and yet nothing moves
        clock.now += 10
        health.beat(lag=5, done=1)
    assert len(health.dead()) == 1
