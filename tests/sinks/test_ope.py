"""Off-policy evaluation in SQL, over the real schema, against `learners.ope` on the same decisions."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from console import ope
from console.target import Target
from learners.ope.decisions import Decisions, always, greedy, uniform
from learners.ope.estimators import Evaluation, evaluate
from steersman.errors import ConfigError, SteersmanError
from tests.sinks.test_views import START_US, insert

ARMS = ["k=1", "k=2", "k=3"]
DAY = dt.datetime(2026, 9, 21, tzinfo=dt.UTC)
_OPE = """
SELECT * FROM v_ope(tenant = {tenant:String}, policy = 'p', target = {target:String}, weights = {weights:Array(Array(Float64))},
    since = {since:DateTime64(6, 'UTC')}, until = {until:DateTime64(6, 'UTC')}, switch_at = {at:Float64}, z = {z:Float64})
"""


def ask(
    client: Client, target: str, at: float, weights: Any = (), days: int = 60, tenant: str = "t"
) -> dict[str, dict[str, Any]]:
    parameters = {
        "tenant": tenant, "target": target, "weights": [list(map(float, row)) for row in weights], "at": at, "z": NormalDist().inv_cdf(0.975),
        "since": DAY - dt.timedelta(days=30), "until": DAY + dt.timedelta(days=days),
    }  # fmt: skip
    return {row["estimator"]: row for row in client.query(_OPE, parameters=parameters).named_results()}


def agree(sql: dict[str, dict[str, Any]], python: Evaluation) -> None:
    assert list(sql) == ["ips", "snips", "dr", "switch"]
    for estimate in python.estimates:
        row = sql[estimate.estimator]
        ours = {
            "value": estimate.value, "likelihood_low": estimate.likelihood.low, "likelihood_high": estimate.likelihood.high,
            "bernstein_low": estimate.bernstein.low, "bernstein_high": estimate.bernstein.high, "n": python.n, "ess": python.ess,
            "weight_mean": python.weight_mean, "weight_max": python.weight_max, "weight_limit": python.weight_limit,
            "logged": python.logged,
        }  # fmt: skip
        assert row.keys() == {"estimator", *ours}
        for name, value in ours.items():
            assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-9), (estimate.estimator, name)


@pytest.fixture
def logged(client: Client, record: Callable[..., dict[str, Any]]) -> Callable[..., tuple[Decisions, np.ndarray]]:
    """Writes a policy and n drawn decisions, and others that must not count; returns the ones that do."""

    def write(n: int, seed: int = 3, offset: float = 0.0, tenant: str = "t") -> tuple[Decisions, np.ndarray]:
        rng = np.random.default_rng(seed)
        policy = {
            "tenant": tenant, "policy": "p", "epoch": 2, "knobs": [{"name": "k", "levels": ["1", "2", "3"]}], "baseline": "k=2",
            "reward_spec": "a" * 16, "version": 9, "stage": "LIVE", "created_at": START_US,
        }  # fmt: skip
        insert(client, "policies", [record("policy_snapshot", **policy)])
        x = np.concatenate([rng.normal(0, 1, (n, 2)), np.ones((n, 1))], axis=1).astype(np.float32)
        eligible = rng.random((n, 3)) < 0.8
        eligible[~eligible.any(axis=1), 0] = True
        p = rng.dirichlet([0.3, 0.3, 0.3], n) * 0.9 + 0.1 / 3
        p = np.where(eligible, p, 0.0)
        p /= p.sum(axis=1, keepdims=True)
        arm = np.array([rng.choice(3, p=row) for row in p])
        drawn = p[np.arange(n), arm]
        utility = offset + 0.3 * arm + 0.2 * x[:, 0] + rng.normal(0, 0.3, n)
        common = {"tenant": tenant, "policy": "p", "reward_spec": "a" * 16, "policy_epoch": 2, "mode": "LIVE"}
        made = [
            record(
                "reward", **common, decision_id=f"d{i}", decided_at=START_US + i, arm=ARMS[arm[i]], propensity=float(drawn[i]),
                utility=float(utility[i]), features=x[i].tolist(), eligible=np.flatnonzero(eligible[i]).tolist(),
            )
            for i in range(n)
        ]  # fmt: skip
        wrong = [
            {"propensity": 1.0}, {"mode": "HOLDOUT", "propensity": 1.0}, {"mode": "FALLBACK", "propensity": 1.0},
            {"policy_epoch": 1}, {"policy_epoch": None}, {"reward_spec": "b" * 16}, {"utility": None}, {"arm": "k=9"},
            {"tenant": "u"}, {"policy": "q"}, {"decided_at": START_US + 61 * 86_400_000_000},
        ]  # fmt: skip
        made += [
            record("reward", **{**common, "decision_id": f"w{i}", "decided_at": START_US, "arm": ARMS[0], "propensity": 0.5,
                                "utility": 99.0, "features": [0.0, 0.0, 1.0], **change})
            for i, change in enumerate(wrong)
        ]  # fmt: skip
        insert(client, "rewards", made)
        counts = drawn < 1
        return Decisions(arm[counts], drawn[counts], utility[counts], eligible[counts]), x[counts]

    return write


def test_sql_gives_what_python_gives(client: Client, logged: Callable[..., tuple[Decisions, np.ndarray]]) -> None:
    decisions, x = logged(700)
    weights = np.array([[0.1, 0.2, 0.0], [-0.3, 0.1, 0.2], [0.2, -0.1, 0.05]])
    targets = {
        "uniform": uniform(decisions.eligible),
        "baseline": always(1, decisions.eligible),
        "k=3": always(2, decisions.eligible),
        "greedy": greedy(weights, x, decisions.eligible),
    }
    for name, target in targets.items():
        for at in (1.5, math.inf):
            agree(ask(client, name, at, weights), evaluate(decisions, target, switch_at=at))
        chosen = evaluate(decisions, target)
        assert 0 < chosen.switch_at <= chosen.weight_max


def test_the_command_reads_the_same_decisions_and_says_it_in_words(
    client: Client,
    gateway: str,
    logged: Callable[..., tuple[Decisions, np.ndarray]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    decisions, x = logged(700)
    where = Target("127.0.0.1:1", gateway, "steersman", "test")
    request = ope.Request("p", "t", "k=3", DAY - dt.timedelta(days=30), DAY + dt.timedelta(days=60))
    read = ope.read(where, request)
    order = np.lexsort((read.decisions.reward,)), np.lexsort((decisions.reward,))
    assert (read.arms, read.baseline, read.control) == (("k=1", "k=2", "k=3"), 1, 99.0)
    for name in ("arm", "propensity", "reward", "eligible"):
        np.testing.assert_array_equal(getattr(read.decisions, name)[order[0]], getattr(decisions, name)[order[1]])
    np.testing.assert_array_equal(read.features[order[0]], x[order[1]])
    ope.run(where, request, as_json=True)
    said = json.loads(capsys.readouterr().out)
    row = ask(client, "k=3", said["switch_at"])["dr"]
    assert said["estimates"]["dr"]["utility"] == pytest.approx(row["value"])
    assert said["estimates"]["dr"]["likelihood"] == pytest.approx([row["likelihood_low"], row["likelihood_high"]])
    assert (said["decisions"], said["effective_sample_size"]) == (row["n"], pytest.approx(row["ess"]))
    ope.run(where, request, as_json=False)
    text = " ".join(capsys.readouterr().out.split())
    assert f"t/p: always taking k=3 would have earned {row['value']:+.4f} utility a decision (DR)" in text
    assert "more than chance explains" in text
    with pytest.raises(ConfigError, match=r"it is greedy, .* or an arm: k=1, k=2, k=3"):
        ope.run(where, ope.Request("p", "t", "k=7"), as_json=False)
    with pytest.raises(SteersmanError, match="none was drawn"):
        ope.run(where, ope.Request("nobody", "t", "uniform"), as_json=False)


def test_sql_gives_what_python_gives_far_from_zero_and_for_next_to_nothing(
    client: Client, logged: Callable[..., tuple[Decisions, np.ndarray]]
) -> None:
    decisions, _ = logged(60, seed=8, offset=-40.0)
    agree(ask(client, "k=1", 2.0), evaluate(decisions, always(0, decisions.eligible), switch_at=2.0))
    for n in (1, 2, 5):
        few, _ = logged(n, seed=11, tenant=f"t{n}")
        agree(ask(client, "uniform", 3.0, tenant=f"t{n}"), evaluate(few, uniform(few.eligible), switch_at=3.0))
    assert ask(client, "uniform", 3.0, days=-1) == {}
