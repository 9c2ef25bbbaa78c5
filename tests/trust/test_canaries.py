from __future__ import annotations

import random

from steersman.redaction import Redactor
from tests.trust.canaries import MAKERS, forms, make
from tests.trust.part_canaries import run


def test_what_is_planted_is_nowhere() -> None:
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    found = run(True, seed, print)
    assert not found.problems
    assert (found.totals["canaries"], found.totals["canaries_found"]) == (300, 0)
    assert len(MAKERS) >= 20


def test_every_kind_is_found_in_whatever_surrounds_it() -> None:
    redactor, r = Redactor(), random.Random(11)
    around = (
        "{}",
        "please use {} now",
        "see: {}.",
        "({})",
        'said "{}" twice',
        "a,{},b",
        "first 12 {} then 99",
        "{}\nnext",
    )
    for kind in MAKERS:
        for form in around:
            canary = make(kind, r)
            left = redactor.text(form.format(canary.text)).encode()
            assert not any(core in left for core in forms(canary)), (kind, form, canary)
