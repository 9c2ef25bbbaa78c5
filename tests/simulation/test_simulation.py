"""Ten thousand schedules of crashes, hand-overs, zombies and compaction: nothing lost, nothing counted twice.

STEERSMAN_SCHEDULES says how many; 10,000 where CI is set, fewer otherwise.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from hypothesis import HealthCheck, Verbosity, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.simulation.checks import check
from tests.simulation.schedule import OPERATIONS, Steps, play
from tests.simulation.world import World

SCHEDULES = int(os.environ.get("STEERSMAN_SCHEDULES") or (10_000 if os.environ.get("CI") else 1_500))
LONG = SCHEDULES // 50
"""Of them, those drawn step by step; they are longer, and hypothesis shrinks them better, but takes ten times as long."""

_SETTINGS = settings(
    deadline=None,  # the machine may be busy; the whole test has a limit
    derandomize=False,
    print_blob=True,
    database=None,
    verbosity=Verbosity.normal,
    # A schedule is one string of bytes, of which many are wasted: that is what makes drawing it cheap.
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Gaps in the log are errors to the runner, and here they are many."""
    caplog.set_level(logging.CRITICAL, "steersman.streams")


def run_schedules(count: int) -> Counter[str]:
    """Play so many schedules; a failure is raised as text, which passes between processes whole."""
    logging.getLogger("steersman.streams").setLevel(logging.CRITICAL)
    seen: Counter[str] = Counter()

    @settings(_SETTINGS, max_examples=count)
    @given(st.binary(min_size=24, max_size=56))
    def run(data: bytes) -> None:
        world = World()
        play(world, data)
        world.finish()
        check(world)
        seen["schedules"] += 1
        seen.update(world.seen)

    try:
        run()
    except BaseException:
        raise AssertionError(traceback.format_exc()) from None
    return seen


def test_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    shares = os.cpu_count() or 1
    seen: Counter[str] = Counter()
    with ProcessPoolExecutor(shares, get_context("spawn")) as pool:
        for found in pool.map(run_schedules, [-(-(SCHEDULES - LONG) // shares)] * shares):
            seen += found
    with capsys.disabled():
        print(f"\n{seen.pop('schedules')} schedules in {time.monotonic() - started:.1f} s: {dict(seen)}")


class Machine(RuleBasedStateMachine):
    """The same world, a step at a time."""

    count = 0

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(
        operation=st.sampled_from(range(len(OPERATIONS))),
        first=st.integers(0, 255),
        second=st.integers(0, 255),
    )
    def step(self, operation: int, first: int, second: int) -> None:
        OPERATIONS[operation](self.world, Steps(bytes([first, second])))

    def teardown(self) -> None:
        self.world.finish()
        check(self.world)
        Machine.count += 1


def test_long_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    run_state_machine_as_test(Machine, settings=settings(_SETTINGS, max_examples=LONG, stateful_step_count=60))
    with capsys.disabled():
        print(f"\n{Machine.count} long schedules in {time.monotonic() - started:.1f} s")


def test_schedules_get_everywhere() -> None:
    """What a schedule may hold does happen; or else the simulation proves nothing."""
    seen: Counter[str] = Counter()
    for data in (bytes((seed * 37 + i * i * 11 + i * 5) % 256 for i in range(120)) for seed in range(60)):
        world = World()
        play(world, data)
        world.finish()
        seen.update(world.seen)
    assert seen.keys() >= {"owners", "zombies", "restored", "acknowledged", "compacted", "resets", "damaged"}, seen
