from __future__ import annotations

import os
import random

import pytest

from steersman.errors import ConfigError
from tests.trust.part_bombs import run


def test_what_is_small_until_it_is_read_stops_nobody() -> None:
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    try:
        found = run(True, seed, print)
    except ConfigError as error:  # no Java
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    assert not found.problems
    assert found.totals["bombs"] == 24
