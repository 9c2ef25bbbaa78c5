"""The exploration rules against their definitions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steersman import exploration
from steersman.exploration import KINDS
from steersman.scoring import Scorer
from tests.steersman.test_scoring import make_snapshot, naive


def context(dim: int, seed: int = 1) -> np.ndarray[Any, Any]:
    return np.array([*np.random.default_rng(seed).normal(size=dim - 1), 1], dtype=np.float32)


def test_thompson_gives_the_shares_of_drawn_normals() -> None:
    gap, deviation = np.array([0.1, 0.0, 0.3, 0.05, 2.0]), np.array([0.2, 0.0, 0.4, 0.02, 0.1])
    rng = np.random.default_rng(0)
    for eligible in (None, np.array([True, True, False, True, True])):
        drawn = -gap + deviation * rng.standard_normal((400_000, 5))
        if eligible is not None:
            drawn[:, ~eligible] = -np.inf
        shares = np.bincount(drawn.argmax(axis=1), minlength=5) / len(drawn)
        chance = exploration.thompson(gap, deviation, 1, eligible)
        np.testing.assert_allclose(chance / chance.sum(), shares, atol=4e-3)
        assert chance.sum() == pytest.approx(1.0, abs=4e-3)
    certain = exploration.thompson(gap, np.zeros(5), 1)
    assert certain.tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]


def test_inverse_gap_weighting() -> None:
    gap = np.array([0.0, 0.5, 0.1])
    np.testing.assert_allclose(exploration.inverse_gap(gap, 10.0, 0), [1 - 1 / 8 - 1 / 4, 1 / 8, 1 / 4])
    allowed = np.array([True, False, True])
    np.testing.assert_allclose(exploration.inverse_gap(gap, 10.0, 0, allowed), [1 - 1 / 3, 0, 1 / 3])
    np.testing.assert_allclose(exploration.inverse_gap(gap, 0.0, 0), 1 / 3)


def test_softmax_and_optimism() -> None:
    np.testing.assert_allclose(exploration.softmax(np.array([0.0, 0.2]), 0.1), [1.0, np.exp(-2)])
    assert exploration.softmax(np.array([0.0, 0.2]), 0.0).tolist() == [1.0, 0.0]
    utility, deviation = np.array([0.5, 0.4, 0.3]), np.array([0.0, 0.2, 0.5])
    assert exploration.optimism(utility, deviation).tolist() == [0, 0, 1]
    assert exploration.optimism(utility, deviation, np.array([True, True, False])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", range(4))
def test_a_router_scores_by_every_rule(kind: str, shape: int) -> None:
    snapshot = make_snapshot(shape, exploration=kind, exploration_scale=0.7, floor=0.1)
    x = context(snapshot.features.dim)
    n = len(snapshot.arms)
    scores = Scorer(snapshot).score(x)
    utility, deviation, maillard = naive(snapshot, x)
    gap = utility.max() - utility
    best = int(utility.argmax())
    expected = {
        "maillard": (maillard - 0.1 / n) / 0.9,
        "thompson": exploration.thompson(gap, 0.7 * deviation, best),
        "igw": exploration.inverse_gap(gap, 0.7, best),
        "softmax": exploration.softmax(gap, 0.7),
        "greedy": (gap == 0).astype(float),
    }
    if kind in expected:
        chance = expected[kind] / expected[kind].sum()
        np.testing.assert_allclose(scores.propensity, 0.9 * chance + 0.1 / n, rtol=1e-5, atol=1e-9)
    assert scores.greedy == best
    assert scores.propensity.sum() == pytest.approx(1.0)
    only = np.zeros(n, dtype=bool)
    only[-1] = True
    assert Scorer(snapshot).score(x, only).propensity[-1] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_no_rule_takes_what_is_not_allowed(kind: str) -> None:
    snapshot = make_snapshot(3, exploration=kind, exploration_scale=1.5)
    allowed = np.arange(len(snapshot.arms)) % 3 > 0
    for seed in range(5):
        p = Scorer(snapshot).score(context(snapshot.features.dim, seed), allowed).propensity
        assert (p[~allowed] == 0).all()
        assert p.sum() == pytest.approx(1.0)
        assert (p[allowed] >= snapshot.floor / allowed.sum() - 1e-12).all()


def test_optimism_adds_deviations_of_the_arm_itself() -> None:
    snapshot = make_snapshot(0, exploration="ucb", exploration_scale=1e6, floor=0.0)
    scorer = Scorer(snapshot)
    x = context(snapshot.features.dim)
    i, j = scorer._squares
    assert scorer.score(x).propensity.argmax() == (scorer._variance @ (x[i] * x[j])).argmax()
    certain = Scorer(replace(snapshot, exploration_scale=0.0)).score(x)
    assert certain.propensity.argmax() == certain.greedy
