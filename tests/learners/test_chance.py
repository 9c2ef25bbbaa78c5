"""A draw computed again is the one the router made, in every mode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from learners.chance import chance
from steersman.held import Held, StaticPolicies
from steersman.router import Router
from steersman.scoring import Scorer
from steersman.sink import MemorySink
from steersman.tracer import Tracer
from tests.page.policies import held

NAME = "team/answers"


def decisions(stage: str, share: float, **options: Any) -> tuple[Held, list[dict[str, Any]]]:
    """What a router reports of 40 decisions, as it is stored."""
    snapshot = replace(held().snapshot, stage=stage, canary_share=share)
    sink = MemorySink()
    with Tracer("a", sink=sink) as tracer:
        router = Router(StaticPolicies([snapshot]), tracer, seed=3, **options)
        for i in range(40):
            eligible = {"k": [1]} if i % 3 == 0 else None
            with tracer.span("AGENT", operation="answer"):
                router.choose(NAME, {"size": i / 10, "kind": "a" if i % 2 else "b"}, eligible)
        tracer.flush()
    return Held(snapshot, Scorer(snapshot), 0), [e for e in sink.records if e["kind"] == "DECISION"]


@pytest.mark.parametrize(
    ("stage", "share", "options"),
    [("LIVE", 1.0, {}), ("LIVE", 0.7, {}), ("CANARY", 0.4, {}), ("SHADOW", 1.0, {}), ("FROZEN", 1.0, {"holdout": 0.5})],
)
def test_the_probability_comes_out_as_logged(stage: str, share: float, options: dict[str, Any]) -> None:
    policy, made = decisions(stage, share, **options)
    assert len(made) == 40
    modes = set()
    for one in made:
        again = chance(
            policy, one["features"], one.get("eligible") or (), one["arm"], str(one["mode"]), one["trace_id"], one["propensity"]
        )  # fmt: skip
        assert again.agrees(one["propensity"]), (one, again)
        if one["mode"] == "HOLDOUT":  # the baseline decides, and its being another than the best is no exploration
            assert one["explored"] is False
        else:
            assert (one["arm"] == again.best) is not one["explored"]
        assert sum(again.probabilities) == pytest.approx(1.0)
        modes.add(str(one["mode"]))
    assert modes == {"LIVE": {"LIVE"} if share == 1.0 else {"LIVE", "HOLDOUT"}, "FROZEN": {"LIVE", "HOLDOUT"}}.get(
        stage, {stage}
    )


def test_another_snapshot_does_not_give_the_same() -> None:
    policy, made = decisions("LIVE", 1.0)
    other = Held(
        replace(policy.snapshot, exploration_scale=0.1), Scorer(replace(policy.snapshot, exploration_scale=0.1)), 0
    )
    differs = [
        not chance(other, e["features"], e.get("eligible") or (), e["arm"], "LIVE", e["trace_id"], e["propensity"]).agrees(e["propensity"])
        for e in made
    ]  # fmt: skip
    assert any(differs)


def test_features_of_another_policy_are_refused() -> None:
    with pytest.raises(ValueError, match="the context has 7 features, the policy"):
        chance(held(), [0.0] * 7, (), "model=small;k=1", "LIVE", "ab" * 16, 0.5)
