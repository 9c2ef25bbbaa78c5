from __future__ import annotations

import random

from tests.trust.part_policies import run


def test_no_bad_policy_is_obeyed_and_each_is_counted() -> None:
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    found = run(True, seed, print)
    assert not found.problems
    assert found.totals == {"forged": 600, "forged_accepted": 0}
    assert all(kind["offered"] == sum(kind["counted"].values()) >= 20 for kind in found.detail.values())
