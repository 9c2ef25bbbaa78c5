from __future__ import annotations

import numpy as np
import pytest

from learners.moments import Moments
from learners.pending import MOST, Pending
from tests.learners.test_policy_learner import SPEC, PolicyLearner, reward


def test_rows_are_handed_over_by_columns_and_once() -> None:
    pending = Pending()
    pending.rows.append(([0.5, 1.0], (0.25, 1.0, 2.0, 0.0), 3, True, 1.0))
    pending.rows.append(([-0.5, 1.0], (0.0, 3.0, 4.0, 1.0), 0, False, 0.5))
    rows = pending.take()
    assert (rows.x.dtype, rows.y.dtype, rows.arms.dtype) == (np.float32, np.float64, np.int64)
    assert rows.x.tolist() == [[0.5, 1.0], [-0.5, 1.0]]
    assert rows.y.tolist() == [[0.25, 1.0, 2.0, 0.0], [0.0, 3.0, 4.0, 1.0]]
    assert (rows.arms.tolist(), rows.rated.tolist(), rows.weights.tolist()) == ([3, 0], [True, False], [1.0, 0.5])
    assert not pending.rows


@pytest.mark.parametrize("every", [1, 7, 1000])
def test_who_asks_for_the_sums_and_when_changes_no_bit(every: int) -> None:
    n = 3 * MOST + 5
    asked, left_alone = PolicyLearner(SPEC), PolicyLearner(SPEC)
    for i in range(n):
        asked.learn_one(reward(i))
        left_alone.learn_one(reward(i))
        if i % every == 0:
            assert asked.moments.counts.sum() == asked.version
            assert asked.utility.n == sum(reward(k)["quality"] is not None for k in range(i + 1))
    assert asked.to_state() == left_alone.to_state()
    assert asked.utility.get() == pytest.approx(left_alone.utility.get(), rel=1e-12)


def test_what_waits_is_summed_as_if_it_had_not() -> None:
    n = MOST + 9
    learner, sums = PolicyLearner(SPEC), Moments(len(SPEC.arms), SPEC.features.dim)
    for i in range(n):
        one = reward(i, cost_micro_usd=10**7 if i == 3 else 500)
        assert learner.learn_one(one).clipped == (i == 3)
        y = np.array([[one["quality"] or 0.0, one["cost_micro_usd"] / 1e4, one["latency_us"] / 1e6, one["failures"]]])
        y[:, 1:] = np.clip(y[:, 1:], -SPEC.reward.clip, SPEC.reward.clip)
        x, arm = np.array([one["features"]], np.float32), np.array([SPEC.arms.index(one["arm"])])
        sums.add(x, y, arm, np.array([one["quality"] is not None]))
    np.testing.assert_array_equal(learner.moments.sums, sums.sums)
