from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman import scoring
from steersman.arms import ArmSpace
from steersman.features import Categorical, Embedding, FeatureSpec, Numeric
from steersman.layout import make_layout
from steersman.scoring import Scorer, draw
from steersman.snapshot import COVARIANCE, HEADS, SECOND_LOOK, Multiplier, PolicySnapshot, Term

SHAPES: list[tuple[dict[str, list[Any]], list[dict[str, Any]], int]] = [
    ({"m": ["a", "b", "c"]}, [], 3),
    ({"m": ["a"]}, [], 2),
    ({"m": ["a", "b"], "k": [1, 2, 3]}, [{"m": "a", "k": 3}], 2),
    ({"a": [1, 2, 3], "b": [1, 2], "c": [1, 2, 3]}, [], 4),
    ({"a": list(range(20)), "b": list(range(10))}, [], 40),
]


def make_snapshot(shape: int = 0, seed: int = 0, second: bool = False, **changes: Any) -> PolicySnapshot:
    """A snapshot of random weights with a proper covariance."""
    knobs, forbidden, dim = SHAPES[shape]
    arms = ArmSpace(knobs, forbidden)
    features = FeatureSpec(
        features=(Numeric(name="n"), Categorical(name="c", values=("x",)), Embedding(name="e", dim=dim))
    )
    layout = make_layout(arms, features)
    rng = np.random.default_rng(seed)
    looks = {SECOND_LOOK: np.linspace(0.01, 0.3, layout.n_arms).astype(np.float32)} if second else {}
    tensors = looks | {f"weights.{head}": rng.normal(size=layout.size).astype(np.float32) for head in HEADS}
    root = rng.normal(size=(layout.arm_size, layout.arm_size)) / layout.arm_size**0.5
    tensors[COVARIANCE] = (root @ root.T)[np.tril_indices(layout.arm_size)].astype(np.float32)
    values: dict[str, Any] = {
        "tenant": "t",
        "policy": "p/q",
        "epoch": 1,
        "version": 7,
        "arms": arms,
        "features": features,
        "baseline": arms.labels[0],
        "tensors": tensors,
        "objective": (Term("quality", 2.0, 1.0), Term("cost", -1.0, 4.0), Term("latency", -0.5, 2.0)),
        "reward_spec": "0123456789abcdef",
        "created_at": 5,
        "exploration_scale": 0.7,
    }
    return PolicySnapshot(**{**values, **changes})


def naive(snapshot: PolicySnapshot, x: np.ndarray[Any, Any]) -> tuple[Any, Any, Any]:
    """Utility, contrast deviations and propensities straight from the definition."""
    layout = make_layout(snapshot.arms, snapshot.features)
    phi = np.stack([layout.phi(x, a) for a in range(layout.n_arms)])
    heads = {head: phi @ snapshot.tensors[f"weights.{head}"].astype(float) for head in HEADS}
    utility = sum(t.weight * heads[t.component] / t.scale for t in snapshot.objective)
    scales = {t.component: t.scale for t in snapshot.objective}
    utility -= sum(m.value * heads[m.component] / scales[m.component] for m in snapshot.multipliers)
    cov = np.zeros((layout.arm_size, layout.arm_size))
    cov[np.tril_indices(layout.arm_size)] = snapshot.tensors[COVARIANCE]
    cov = cov + np.tril(cov, -1).T
    best = int(np.argmax(utility))
    contrast = (phi - phi[best])[:, layout.dim :]
    weight = next(t.weight for t in snapshot.objective if t.component == "quality")
    sd = np.sqrt(np.maximum(np.einsum("ki,ij,kj->k", contrast, cov, contrast), 0)) * weight
    gap = utility[best] - utility
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(gap == 0, 1.0, np.exp(-(gap**2) / (2 * (snapshot.exploration_scale * sd) ** 2)))
        second = snapshot.tensors.get(SECOND_LOOK, np.zeros(layout.n_arms)).astype(float)
        p = p + second * np.where(gap == 0, 1.0, np.exp(-(gap**2) / (2 * sd**2)))
    p /= p.sum()
    return utility, sd, (1 - snapshot.floor) * p + snapshot.floor / layout.n_arms


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("second", [False, True])
def test_scorer_equals_the_definition(shape: int, second: bool) -> None:
    snapshot = make_snapshot(shape, second=second, multipliers=(Multiplier("latency", 0.25),))
    rng = np.random.default_rng(1)
    for _ in range(5):
        x = rng.normal(size=snapshot.features.dim).astype(np.float32)
        x[-1] = 1
        scores = Scorer(snapshot).score(x)
        utility, sd, p = naive(snapshot, x)
        np.testing.assert_allclose(scores.utility, utility, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(scores.propensity, p, rtol=1e-6, atol=1e-9)
        assert scores.greedy == np.argmax(utility)
        if len(p) > 1:
            scorer = Scorer(snapshot)
            inter = x[scorer.layout.columns].astype(float)
            variance = scorer._contrast_variance(inter, scores.greedy) * 4.0
            np.testing.assert_allclose(variance, sd**2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_components_are_the_heads_predictions(shape: int) -> None:
    snapshot = make_snapshot(shape)
    layout = make_layout(snapshot.arms, snapshot.features)
    x = snapshot.features.encode({"n": 0.3, "c": "x", "e": np.arange(SHAPES[shape][2]) / 9})
    components = Scorer(snapshot).components(x)
    for arm in range(layout.n_arms):
        for head in HEADS:
            expected = layout.phi(x, arm) @ snapshot.tensors[f"weights.{head}"].astype(float)
            assert getattr(components, head)[arm] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_common_doubt_does_not_blur_a_small_difference() -> None:
    # What the arms share is a billion times as uncertain as their difference, which must not get lost in it.
    snapshot = make_snapshot(2, exploration_scale=1.0)
    layout = make_layout(snapshot.arms, snapshot.features)
    cov = np.eye(layout.arm_size)
    first = slice(0, 2 * len(layout.columns))  # both levels of the first knob
    cov[first, first] *= 2.0**30
    scorer = Scorer(
        replace(snapshot, tensors={**snapshot.tensors, COVARIANCE: cov[np.tril_indices(len(cov))].astype(np.float32)})
    )
    x = snapshot.features.encode({"n": 0.3, "c": "x", "e": [0.5, -0.25]})
    variance = scorer._contrast_variance(x.astype(float), 0)
    same_first_knob = snapshot.arms.levels[:, 0] == 0
    expected = 2 * float(x.astype(float) @ x.astype(float)) + 2  # two levels of the other knob, and two pairs
    np.testing.assert_allclose(variance[same_first_knob][1:], expected, rtol=1e-5)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    shape=st.integers(0, 3),
    seed=st.integers(0, 50),
    floor=st.sampled_from([0.0, 0.02, 1.0]),
    scale=st.sampled_from([0.0, 0.1, 5.0]),
    kind=st.sampled_from(["maillard", "greedy"]),
    data=st.data(),
)
def test_propensities_are_probabilities(
    shape: int, seed: int, floor: float, scale: float, kind: str, data: st.DataObject
) -> None:
    snapshot = make_snapshot(shape, seed, floor=floor, exploration_scale=scale, exploration=kind)
    n = len(snapshot.arms)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any)))
    x = np.array([*np.random.default_rng(seed).normal(size=snapshot.features.dim - 1), 1], dtype=np.float32)
    scores = Scorer(snapshot).score(x, mask)
    p = scores.propensity
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    assert (p[~mask] == 0).all()
    assert (p[mask] >= floor / mask.sum() - 1e-15).all()
    assert mask[scores.greedy]
    assert scores.utility[scores.greedy] == scores.utility[mask].max()
    assert mask[draw(p, data.draw(st.floats(0, 1, exclude_max=True)))]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    shape=st.integers(0, 3),
    seed=st.integers(0, 50),
    floor=st.sampled_from([0.0, 0.02, 1.0]),
    scale=st.sampled_from([0.0, 0.1, 5.0]),
    second=st.booleans(),
    data=st.data(),
)
def test_few_arms_are_weighed_as_many_are(
    shape: int, seed: int, floor: float, scale: float, second: bool, data: st.DataObject
) -> None:
    snapshot = make_snapshot(shape, seed, second, floor=floor, exploration_scale=scale)
    n = len(snapshot.arms)
    masks = st.lists(st.booleans(), min_size=n, max_size=n).filter(any).map(np.array)
    mask = data.draw(st.none() | masks)
    x = np.array([*np.random.default_rng(seed).normal(size=snapshot.features.dim - 1), 1], dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_FEW_ARMS", 0)
        patch.setattr(scoring, "_FEW_CONTRASTS", 0)
        many = Scorer(snapshot).weigh(x, mask)
    few = Scorer(snapshot).weigh(x, mask)
    assert isinstance(few.propensity, list)
    assert not isinstance(many.propensity, list)
    assert few.greedy == many.greedy
    np.testing.assert_array_equal(few.utility, many.utility)
    np.testing.assert_allclose(few.propensity, many.propensity, rtol=1e-9, atol=1e-12)


def test_draws_match_the_propensities() -> None:
    snapshot = make_snapshot(3, seed=3, exploration_scale=1.5)
    x = np.array([*np.random.default_rng(4).normal(size=snapshot.features.dim - 1), 1], dtype=np.float32)
    p = Scorer(snapshot).score(x).propensity
    rng = np.random.default_rng(5)
    n = 100_000
    counts = np.bincount([draw(p, u) for u in rng.random(n)], minlength=len(p))
    chi2 = float((((counts - n * p) ** 2) / (n * p)).sum())
    assert p.max() < 0.9
    assert chi2 < 40.8  # 0.1 % point of chi-square with 17 degrees of freedom


def test_draw_never_picks_what_cannot_be() -> None:
    p = np.array([0.0, 0.5, 0.0, 0.5, 0.0])
    assert draw(p, 0.0) == 1
    assert draw(p, 0.5) == 3
    assert draw(p, np.nextafter(1.0, 0.0)) == 3


@pytest.mark.parametrize("arms", [1, 8, 32])
def test_few_arms_are_drawn_as_many_are(arms: int) -> None:
    rng = np.random.default_rng(arms)
    p = rng.random(arms) * (rng.random(arms) < 0.7)
    p[0] += 1e-3
    p /= p.sum()
    many = np.concatenate([p, np.zeros(100)])  # the same arms, and so many more that the sums are made in an array
    edges = np.add.accumulate(p)
    uniforms = [*rng.random(500), *edges[edges < 1.0]]
    assert [draw(p, u) for u in uniforms] == [draw(many, u) for u in uniforms]


def test_no_knowledge_is_an_even_draw_and_greedy_is_the_baseline() -> None:
    snapshot = make_snapshot(0)
    blank = {name: np.zeros_like(t) if name != COVARIANCE else t for name, t in snapshot.tensors.items()}
    snapshot = replace(snapshot, tensors=blank, baseline="m=b")
    scores = Scorer(snapshot).score(np.array([1, 0, 0, 0, 0, 1], dtype=np.float32))
    np.testing.assert_allclose(scores.propensity, 1 / 3)
    assert scores.greedy == 1


def test_a_new_weight_takes_effect_without_new_weights_of_the_heads() -> None:
    snapshot = make_snapshot(0)
    x = np.array([1, 0, 0.5, 0, 0, 1], dtype=np.float32)
    free, dear = (
        Scorer(replace(snapshot, objective=(Term("quality", 1.0, 1.0), Term("cost", w, 1.0)))) for w in (0.0, -2.0)
    )
    np.testing.assert_allclose(dear.score(x).utility, free.score(x).utility - 2 * free.components(x).cost)


def test_bad_input_is_refused() -> None:
    scorer = Scorer(make_snapshot(0))
    with pytest.raises(ValueError, match="shape"):
        scorer.score(np.ones(3))
    with pytest.raises(ValueError, match="shape"):
        scorer.score(np.ones(6), np.ones(2, dtype=bool))
    with pytest.raises(ValueError, match="no arm"):
        scorer.score(np.ones(6), np.zeros(3, dtype=bool))
    with pytest.raises(ValueError, match="not finite"):
        scorer.score(np.array([np.nan, 0, 0, 0, 0, 1]))
    with pytest.raises(ValueError, match="not 1"):
        scorer.score(np.full(6, 2.0))


def test_large_policies_let_fewer_columns_interact() -> None:
    few = Scorer(make_snapshot(4)).layout
    assert few.columns.tolist() == [1, 42]  # the category and the constant
    assert few.size == 43 + 30 * 2 + 200
