from __future__ import annotations

import numpy as np
import pytest

from examples.fleet.scenarios import SCENARIOS, policy_toml
from examples.fleet.world import ARMS, BASELINE
from learners.policies_file import parse_policies
from learners.spec import PolicySpec
from steersman.features import FeatureSpec


def spec_of(name: str) -> PolicySpec:
    return next(iter(parse_policies(policy_toml(name, "linear"))))


def unexplained(name: str, n: int = 2000) -> float:
    """Share of the arms' quality, their own means apart, that no linear model of the features gives."""
    spec, rng = spec_of(name), np.random.default_rng(1)
    requests = [SCENARIOS[name](rng) for _ in range(n)]
    x = np.array([spec.features.encode(request.context) for request in requests], dtype=np.float64)
    quality = np.array([request.means.quality for request in requests])
    fit, *_ = np.linalg.lstsq(x, quality, rcond=None)
    return float(((quality - x @ fit) ** 2).sum() / ((quality - quality.mean(axis=0)) ** 2).sum())


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_scenario_is_the_synthesis_step_under_its_own_policy(name: str) -> None:
    spec = spec_of(name)
    assert [dict(arm) for arm in spec.arms.arms] == [dict(arm) for arm in ARMS["synthesis"]]
    assert dict(spec.arms.arms[spec.arms.index(spec.baseline)]) == BASELINE["synthesis"]
    one, again = (SCENARIOS[name](np.random.default_rng(7)) for _ in range(2))
    assert one.context == again.context
    np.testing.assert_array_equal(one.utility, again.utility)
    assert isinstance(spec.features, FeatureSpec)
    assert {feature.name for feature in spec.features.features} == set(one.context)


def test_one_is_linear_and_the_other_is_not() -> None:
    assert unexplained("linear") < 1e-9
    assert unexplained("curved") > 0.6
