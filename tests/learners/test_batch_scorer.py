from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from learners.batch_scorer import BatchScorer
from steersman.layout import make_layout
from steersman.snapshot import COVARIANCE
from tests.steersman.test_scoring import SHAPES, make_snapshot


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_many_contexts_are_scored_as_each_is(shape: int) -> None:
    scorer = BatchScorer(make_snapshot(shape, seed=shape))
    x = np.random.default_rng(shape).standard_normal((20, scorer.snapshot.features.dim)).astype(np.float32)
    x[:, -1] = 1.0
    each = [scorer.score(row) for row in x]
    utility = scorer.utilities(x)
    np.testing.assert_allclose(utility, [one.utility for one in each], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        scorer.predictions(x).transpose(1, 0, 2), [scorer.components(row) for row in x], rtol=1e-9, atol=1e-12
    )
    for row, one in zip(x, each, strict=True):
        gap = (one.utility[one.greedy] - one.utility)[None]
        stated = scorer.rule(gap, scorer.contrasts(row[None], one.greedy))
        np.testing.assert_allclose(stated[0], one.propensity, rtol=1e-9, atol=1e-12)


def test_a_doubt_common_to_the_levels_of_one_knob_is_no_doubt_about_their_difference() -> None:
    snapshot = make_snapshot(0, exploration_scale=1.0)
    layout = make_layout(snapshot.arms, snapshot.features)
    m = len(layout.columns)
    cov = np.eye(layout.arm_size) + 2.0**20 * np.kron(np.ones((3, 3)), np.eye(m))
    tensors = {**snapshot.tensors, COVARIANCE: cov[np.tril_indices(len(cov))].astype(np.float32)}
    x = snapshot.features.encode({"n": 0.3, "c": "x", "e": [0.5, -0.25, 0.125]}).astype(float)
    [variance] = BatchScorer(replace(snapshot, tensors=tensors)).contrasts(x[None], 1)
    np.testing.assert_allclose(variance, [2 * (x @ x), 0.0, 2 * (x @ x)], rtol=1e-9)
