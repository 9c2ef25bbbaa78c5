from __future__ import annotations

from tests.trust.part_poisoned import FLOOR, HIJACKED, LIES, POINTS, UNBOUNDED, run

SEED = 1
"""Fixed: what a lie gains in 1,500 requests is a matter of chance, so other draws are for `make trust`, which plays twice as many."""


def test_liars_do_not_steer_and_without_defence_they_do() -> None:
    found = run(True, SEED, print)
    assert not found.problems
    assert len(found.detail) == len(LIES) + len(UNBOUNDED)
    assert found.totals["poisoned_share"] <= FLOOR / 3 + POINTS
    assert found.totals["poisoned_share_undefended"] >= HIJACKED
