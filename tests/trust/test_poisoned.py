from __future__ import annotations

import random

from tests.trust.part_poisoned import FLOOR, HIJACKED, LIES, POINTS, UNBOUNDED, run


def test_liars_do_not_steer_and_without_defence_they_do() -> None:
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    found = run(True, seed, print)
    assert not found.problems
    assert len(found.detail) == len(LIES) + len(UNBOUNDED)
    assert found.totals["poisoned_share"] <= FLOOR / 3 + POINTS
    assert found.totals["poisoned_share_undefended"] >= HIJACKED
