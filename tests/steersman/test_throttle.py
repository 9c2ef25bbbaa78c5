"""Warnings, one per interval."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from steersman.throttle import Throttle


def test_one_line_per_interval_and_the_next_says_what_was_held_back(
    clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    throttle = Throttle(20, clock)
    with caplog.at_level(logging.WARNING, "steersman"):
        assert throttle.warn("a %s", 1)
        assert not throttle.warn("b")
        clock.advance(19.9)
        assert not throttle.warn("c")
        clock.advance(0.2)
        assert throttle.warn("d %d %%", 4)
    assert [record.getMessage() for record in caplog.records] == ["a 1", "d 4 % (2 more since the last warning)"]
