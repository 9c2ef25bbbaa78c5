"""Reports about levels and trade-offs say what the policy does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.knobs import front, hull_of, level_reports, mixture
from learners.policy_learner import PolicyLearner
from steersman.held import Held
from steersman.scoring import Scorer
from tests.learners.test_policy_learner import SPEC, reward


@pytest.fixture
def held() -> Held:
    learner = PolicyLearner(SPEC)
    rewards = []
    for i in range(400):
        one = reward(i)
        large = one["arm"].startswith("model=l")
        rewards.append({**one, "quality": 0.9 if large else 0.5, "cost_micro_usd": 9000 if large else 1000})
    learner.learn_many(rewards)
    snapshot = learner.snapshot(1)
    return Held(snapshot, Scorer(snapshot), 0)


def test_levels_have_shares_that_add_up_and_effects_that_cancel(held: Held) -> None:
    x = SPEC.features.encode({})
    reports = level_reports(held, x)
    assert [(r.knob, r.level) for r in reports] == [
        ("model", "s"), ("model", "l"), ("k", "2"), ("k", "4"), ("k", "8"),
    ]  # fmt: skip
    for knob in SPEC.arms.knobs:
        own = [r for r in reports if r.knob == knob]
        assert sum(r.share for r in own) == pytest.approx(1.0)
        for part in ("utility", "quality", "cost", "latency"):
            assert sum(getattr(r, part) for r in own) == pytest.approx(0.0, abs=1e-6)
    small, large = reports[:2]
    assert large.quality - small.quality == pytest.approx(0.4, abs=0.1)
    assert large.cost - small.cost == pytest.approx(8000, rel=0.1)


def test_the_front_goes_from_cheap_to_good(held: Held) -> None:
    arms = front(held, SPEC.features.encode({}))
    assert [a.cost for a in arms] == sorted(a.cost for a in arms)
    on = [a for a in arms if a.on_front]
    assert on[0].worth is None
    slopes = [a.worth for a in on[1:]]
    assert slopes == sorted(slopes, reverse=True)
    assert on[0].arm.startswith("model=s")
    assert on[-1].arm.startswith("model=l")


points = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=8)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(arms=points, ceiling=st.integers(0, 20))
def test_no_mixture_of_two_arms_is_better_than_the_one_found(arms: list[tuple[int, int]], ceiling: int) -> None:
    spent = np.array([a for a, _ in arms], dtype=float)
    quality = np.array([b for _, b in arms], dtype=float)
    if spent.min() > ceiling:
        with pytest.raises(ValueError, match="cheapest"):
            mixture(spent, quality, ceiling)
        return
    found = mixture(spent, quality, ceiling)
    assert sum(share for _, share in found) == pytest.approx(1.0)
    assert sum(spent[a] * share for a, share in found) <= ceiling + 1e-9
    reached = sum(quality[a] * share for a, share in found)
    for one, two in itertools.product(range(len(arms)), repeat=2):
        for share in np.linspace(0, 1, 21):
            if share * spent[one] + (1 - share) * spent[two] <= ceiling:
                assert reached >= share * quality[one] + (1 - share) * quality[two] - 1e-9
    assert {a for a, _ in found} <= set(hull_of(spent, quality))
