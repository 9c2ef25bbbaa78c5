"""Off-policy estimates against values worked out by hand and against the truth of a small world."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchmarks.ope_worlds import WORLDS, draw
from learners.ope.decisions import Decisions, always, arm_means, greedy, uniform
from learners.ope.estimators import evaluate, switch_threshold
from learners.ope.intervals import Fake, Interval, Moments, bernstein, likelihood
from learners.ope.sequence import LowerSequence

FREE = np.ones((4, 2), dtype=bool)


def four() -> Decisions:
    return Decisions(np.array([0, 0, 1, 1]), np.array([0.5, 0.5, 0.5, 0.25]), np.array([1.0, 0.0, 1.0, 0.5]), FREE)


def test_the_estimators_by_hand() -> None:
    decisions = four()
    target = always(1, decisions.eligible)
    # weights 0, 0, 2, 4; arm 1 without the decision itself: 0.75, 0.75, 0.5, 1.0; w (r - q): 0, 0, 2 x 0.5, 4 x -0.5
    found = evaluate(decisions, target, switch_at=3.0)
    assert found["ips"].value == (2 * 1.0 + 4 * 0.5) / 4
    assert found["snips"].value == (2 * 1.0 + 4 * 0.5) / 6
    assert found["dr"].value == pytest.approx((0.75 + 0.75 + 0.5 + 1.0 + 1.0 - 2.0) / 4)
    assert found["switch"].value == pytest.approx((0.75 + 0.75 + 0.5 + 1.0 + 1.0) / 4)
    assert found.ess == 36 / 20
    assert (found.n, found.weight_mean, found.weight_max, found.weight_limit) == (4, 1.5, 4.0, 4.0)
    assert found.logged == 0.625


def test_arm_means_leave_the_decision_itself_out() -> None:
    assert arm_means(four())[:, 0].tolist() == [0.0, 1.0, 0.5, 0.5]
    alone = Decisions(np.array([0, 1, 1]), np.array([0.5] * 3), np.array([1.0, 0.2, 0.4]), np.ones((3, 3), dtype=bool))
    assert arm_means(alone) == pytest.approx(np.array([[0.3, 0.3, 0.3], [1.0, 0.4, 0.7], [1.0, 0.2, 0.6]]))


def test_targets_obey_what_is_eligible() -> None:
    eligible = np.array([[True, True, False], [False, True, True]])
    assert uniform(eligible).tolist() == [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    assert always(0, eligible).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], "the first allowed where it is not"
    weights = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 5.0]])
    assert greedy(weights, np.array([[1.0, 1.0], [1.0, 1.0]]), eligible).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_the_logging_policy_itself_has_weight_one_and_its_own_mean() -> None:
    world = WORLDS["4 arms, 1,000 decisions, one arm asked"]
    _, decisions, _, chances = draw(world, 5)
    found = evaluate(decisions, chances)
    assert found.weight_mean == pytest.approx(1.0)
    assert found.ess == pytest.approx(len(decisions))
    assert found["ips"].value == pytest.approx(found.logged)
    assert found["snips"].value == pytest.approx(found.logged)
    assert found["dr"].value == pytest.approx(found.logged, abs=5e-3)


@pytest.mark.parametrize("name", WORLDS)
def test_the_truth_lies_within_and_estimates_are_right_on_the_mean(name: str) -> None:
    runs, off, inside = 30, [], 0
    for seed in range(runs):
        truth, decisions, target, _ = draw(WORLDS[name], seed)
        found = evaluate(decisions, target)
        off.append([found[e].value - truth for e in ("ips", "dr")])
        inside += sum(e.likelihood.low <= truth <= e.likelihood.high for e in found.estimates)
        assert all(e.bernstein.low <= truth <= e.bernstein.high for e in found.estimates if e.estimator != "switch")
    errors = np.array(off)
    assert inside >= 0.9 * 4 * runs
    assert np.all(np.abs(errors.mean(axis=0)) < 4 * errors.std(axis=0) / math.sqrt(runs) + 1e-3)


def test_bernstein_by_hand() -> None:
    log = math.log(80)
    half = math.sqrt(2 * 0.25 * log / 100) + 7 * 2.0 * log / (3 * 99)
    assert bernstein(100, 0.5, 0.25, 2.0, 0.05) == pytest.approx((0.5 - half, 0.5 + half))
    assert bernstein(1, 0.5, 0.25, 2.0, 0.05) == (-math.inf, math.inf)


def test_likelihood_is_the_regression_at_weight_one() -> None:
    rng = np.random.default_rng(1)
    w = rng.exponential(1.0, 5_000)
    g = 0.7 * w + rng.normal(0, 0.1, 5_000)
    cov = np.cov(g, w)
    moments = Moments(5_000, g.mean(), cov[0, 0], w.mean(), cov[1, 1], cov[0, 1])
    mean = Fake(float(w.mean()), float(g.mean()))  # an unseen decision that says nothing new
    low, high = likelihood(moments, [mean], [mean], 1.96)
    assert (low + high) / 2 == pytest.approx(0.7, abs=0.01)
    assert (high - low) / 2 == pytest.approx(1.96 * 0.1 / math.sqrt(5_000), rel=0.05)
    worst, _ = likelihood(moments, [Fake(50.0, 0.0)], [mean], 1.96)
    assert worst < low, "a heavy weight that was not seen makes room"
    assert Interval(-3.0, 3.0).within(0.0, 1.0) == (0.0, 1.0)


def test_switch_leaves_a_single_heavy_weight_to_the_model() -> None:
    w = np.array([1.0] * 999 + [500.0])
    residual = np.array([0.1, -0.1] * 499 + [0.1, 300.0])
    assert switch_threshold(w, np.full(1000, 0.5), residual, 0.1) < 500.0
    assert switch_threshold(np.ones(1000), np.full(1000, 0.5), residual, 0.1) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"arm": np.array([0, 2])},
        {"propensity": np.array([0.5, 0.0])},
        {"reward": np.array([0.5, math.nan])},
        {"eligible": np.array([[True, True], [False, False]])},
        {"reward": np.array([0.5])},
        {name: np.zeros(0, dtype=np.int64) for name in ("arm", "propensity", "reward")},
    ],
)
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    good = {
        "arm": np.array([0, 1]), "propensity": np.array([0.5, 0.5]), "reward": np.array([0.5, 0.5]),
        "eligible": np.ones((2, 2), dtype=bool),
    }  # fmt: skip
    with pytest.raises(ValueError):  # noqa: PT011 - every one has a message of its own
        Decisions(**{**good, **wrong})
    with pytest.raises(ValueError, match="shape"):
        evaluate(Decisions(**good), np.ones((2, 3)))
    with pytest.raises(ValueError, match="confidence"):
        evaluate(Decisions(**good), np.ones((2, 2)) / 2, confidence=1.0)


# ---- anytime-valid ---------------------------------------------------------------------------------------------------


def test_the_lower_sequence_holds_at_all_times_and_tightens() -> None:
    wrong, last = 0, []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        sequence, ever = LowerSequence(), False
        for y in rng.choice([-1.0, 1.0], 500, p=[0.45, 0.55]).tolist():
            sequence.add(y, 1.0, 0.05)
            ever = ever or sequence.lower(0.05) > 0.1
        wrong += ever
        last.append(sequence.lower(0.05))
    assert wrong <= 10, "5 expected at most"
    assert -0.12 < np.mean(last) < 0.1


def test_evidence_and_lower_bound_say_the_same() -> None:
    rng = np.random.default_rng(2)
    sequence = LowerSequence()
    for y in rng.normal(0.3, 0.3, 400).clip(-1, 5).tolist():
        sequence.add(y, 1.0, 0.05)
        for alpha in (0.5, 0.05, 0.001):
            assert (sequence.log_evidence >= math.log(1 / alpha)) == (sequence.lower(alpha) >= 0)
    assert sequence.lower(0.05) > 0
    assert LowerSequence.of(vars(sequence)) == sequence
    assert LowerSequence().lower(0.05) == -math.inf
