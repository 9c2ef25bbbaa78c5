from __future__ import annotations

import random

from tests.trust.hostile_bytes import Hostile
from tests.trust.part_hostile import run


def test_whatever_the_bytes_every_decoder_takes_or_refuses_them() -> None:
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    found = run(True, seed, print)
    assert not found.problems
    assert found.totals["crashes"] == 0
    assert found.totals["hostile_inputs"] == 1500
    assert found.totals["hostile_decoders"] >= 30


def test_an_input_is_told_by_its_number() -> None:
    one, other = Hostile(3), Hostile(3)
    assert [one.make(i) for i in range(50)] == [other.make(i) for i in range(50)]
    assert one.make(1) != Hostile(4).make(1)
