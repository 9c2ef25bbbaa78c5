"""What the benchmark of ceilings measures at length is measured right."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ceilings import kept, tenants
from benchmarks.worlds import Run, fleet
from learners.policy_learner import PolicyLearner


def test_a_window_over_the_ceiling_is_told_from_one_below() -> None:
    world = fleet(0, 2000)
    run = Run(world, PolicyLearner(world.spec))
    run.arms = [0] * 2000
    use = np.ones((2000, len(world.spec.arms)))
    use[:1300] = 1.5
    found = kept(run, use, 1.0, np.arange(2000))
    assert found.worst == found.over == pytest.approx(0.35)
    assert found.mean == pytest.approx((700 * 1.5 + 700) / 1400)
    assert found.inside == 0.0
    below = kept(run, use / 1.5, 1.0, np.arange(2000))
    assert below.over == 0.0
    assert below.worst > 0.2
    exact = kept(run, np.ones_like(use), 1.0, np.arange(2000))
    assert (exact.mean, exact.worst, exact.inside) == (1.0, 0.0, 1.0)


def test_whose_a_request_is() -> None:
    run, whose = tenants(1, 40, {"standard": 5000.0})
    at = run.world.spec.features.column("tier")
    assert (run.world.x[whose == "standard", at] == 1.0).all()
    assert (run.world.x[whose == "enterprise", at + 1] == 1.0).all()
