from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learners.linucb import LinUCB
from learners.odds import LEAST, MOST, Seen
from learners.policy_learner import PolicyLearner
from learners.spec import PolicySpec
from steersman.arms import ArmSpace
from steersman.features import Categorical, FeatureSpec, Numeric
from steersman.scoring import Scorer

CATEGORIES = ("easy", "hard", "usual")
SPEC = PolicySpec(
    tenant="default",
    name="odds",
    arms=ArmSpace({"model": ["good", "poor"]}, []),
    baseline="model=poor",
    features=FeatureSpec(features=(Categorical(name="c", values=CATEGORIES), Numeric(name="n"))),
)


def rewards(qualities: dict[tuple[str, str], list[float]]) -> list[dict[str, Any]]:
    made = []
    events = [(*of, quality) for of, values in qualities.items() for quality in values]
    for i, at in enumerate(np.random.default_rng(1).permutation(len(events))):  # in no order, which would be drift
        model, category, quality = events[at]
        made.append(
            {
                "decision_id": f"d{i}", "tenant": "default", "policy": "odds", "policy_epoch": 1,
                "arm": f"model={model}", "mode": "LIVE",
                "features": [*(float(category == c) for c in CATEGORIES), 0.0, 1.0],
                "quality": quality, "cost_micro_usd": 0, "latency_us": 0, "failures": 0,
                "reward_spec": SPEC.reward_hash, "source_partition": 0, "source_offset": i, "seq": 0,
            }
        )  # fmt: skip
    return made


def taught(qualities: dict[tuple[str, str], list[float]], kind: type[PolicyLearner] = PolicyLearner) -> PolicyLearner:
    learner = kind(SPEC)
    learner.learn_many(rewards(qualities))
    return learner


def weight_of_prior(learner: PolicyLearner) -> np.ndarray[Any, Any]:
    """What the prior's precision is of each parameter: that of the posterior without that of the rewards."""
    factor = np.tril(learner.posteriors()[0].factor)
    plain = LinUCB(SPEC)
    plain.moments = learner.moments
    without = np.tril(plain.posteriors()[0].factor)
    return np.diag(factor @ factor.T - without @ without.T) + plain.beliefs.precisions[0]


def usual(good: float, poor: float, n: int = 200) -> dict[tuple[str, str], list[float]]:
    """Right or wrong answers in the usual category."""
    return {
        ("good", "usual"): [float(i < good * n) for i in range(n)],
        ("poor", "usual"): [float(i < poor * n) for i in range(n)],
    }


def test_right_or_wrong_answers_make_effects_earn_belief_and_a_sharp_judge_does_not() -> None:
    coarse, fine = taught(usual(0.6, 0.4)), taught({(m, "usual"): [q] * 200 for m, q in (("good", 0.8), ("poor", 0.6))})
    given = coarse.beliefs.precisions[0]
    ratio = weight_of_prior(coarse) / given
    mean = (200 + 5.0) / 410
    first = PolicyLearner(SPEC)
    first.beliefs, first.moments = replace(first.beliefs, odds=None), coarse.moments
    noise = float(first.posteriors()[0].noise[0])
    assert ratio[[5, 6, 7, 8, 10, 11, 12, 13]] == pytest.approx(noise / (mean * (1 - mean)) ** 2)
    assert 3.5 < ratio[5] < MOST
    assert ratio[[0, 1, 2, 3, 4, 9, 14]] == pytest.approx(1.0, abs=1e-6)  # what arms share, and their own means
    assert (weight_of_prior(fine) / given)[5] == pytest.approx(LEAST, abs=0.01)


def test_it_is_never_more_than_four_times_as_much() -> None:
    learner = taught({("good", "usual"): [1.0] * 300, ("poor", "usual"): [1.0] * 300})
    assert (weight_of_prior(learner) / learner.beliefs.precisions[0])[5] == pytest.approx(MOST)


def test_effects_that_are_plainly_large_are_believed_as_before() -> None:
    """The poor model is always right where it is easy, and hardly ever elsewhere: no effect of a usual size in log-odds."""
    learner = taught(usual(0.95, 0.2) | {("good", "easy"): [1.0] * 60, ("poor", "easy"): [1.0] * 60})
    assert weight_of_prior(learner) / learner.beliefs.precisions[0] == pytest.approx(np.ones(15), abs=1e-5)
    few = taught(usual(0.95, 0.2, 20) | {("good", "easy"): [1.0] * 2, ("poor", "easy"): [1.0] * 2})
    assert (weight_of_prior(few) / few.beliefs.precisions[0])[5] > 1.5


@pytest.mark.parametrize("off", [-40.0, 3.0])
def test_other_ranges_keep_their_priors(off: float) -> None:
    learner = taught({arm: [quality + off for quality in made] for arm, made in usual(0.8, 0.6).items()})
    assert weight_of_prior(learner) / learner.beliefs.precisions[0] == pytest.approx(np.ones(15), abs=1e-5)


def test_where_the_best_nearly_always_fails_the_others_are_tried() -> None:
    """The good model fails at what is hard; nobody has tried the poor one there."""
    x = np.array([0.0, 1.0, 0.0, 0.0, 1.0], dtype=np.float32)
    seen = usual(0.9, 0.5) | {("good", "hard"): [0.0] * 30}
    learner, before = taught(seen), PolicyLearner(SPEC)
    before.beliefs, before.moments = replace(before.beliefs, odds=None), learner.moments
    now, then = (Scorer(one.snapshot(0)).score(x) for one in (learner, before))
    good, poor = (SPEC.arms.index(f"model={name}") for name in ("good", "poor"))
    assert now.propensity[poor] > 2.0 * then.propensity[poor]
    assert now.utility[good] - now.utility[poor] < 0.5 * (then.utility[good] - then.utility[poor])


def test_where_all_succeed_nothing_is_taken_back() -> None:
    learner = taught(usual(0.8, 0.6) | {("good", "easy"): [1.0] * 30})
    assert learner.beliefs.odds is not None
    seen = Seen.of(learner.moments, learner.moments.sums[:, 0], learner.beliefs.odds.categories)
    assert seen.counts.tolist() == [30.0, 0.0, 400.0]
    assert not learner.beliefs.odds.shift(learner.posteriors()[0].theta[:, 0], seen).any()


def test_those_that_have_priors_of_their_own_keep_them() -> None:
    assert LinUCB(SPEC).beliefs.odds is None
