"""What may change in a policy while it runs, and the record of it.

An epoch rests on arms, features, components and learner (`PolicySpec.lineage`). All else, the *settings*, may change inside it:
weights, ceilings, prices, what was expected of levels, exploration, baseline, guard, sessions, how to forget and whom to trust. Some of it moves the learner's state, so a
learner keeps every set of settings it has had with the number of rewards it had applied by then (a *revision*), and a
replay changes them at the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .guard_spec import GuardSpec
from .prior_spec import PriorSpec
from .spec import TENANT_FEATURE, Ceilings, Exploration, Learning, PolicySpec, RewardSpec, Weights

MAX_REVISIONS = 500
"""Revisions of one epoch; the next one begins another."""


def settings_of(spec: PolicySpec) -> dict[str, Any]:
    """The settings of a policy, JSON-ready; equal settings are equal values."""
    # What was added later is left out where it is not set, so that old settings stay equal to themselves.
    ranged = {} if spec.reward.range is None else {"range": list(spec.reward.range)}
    reward = spec.reward
    tenants = (
        {
            "tenant_feature": reward.tenant_feature,
            "tenant_ceilings": {
                tenant: one.model_dump(exclude_none=True) for tenant, one in sorted(reward.tenant_ceilings.items())
            },
        }
        if reward.tenant_ceilings
        else {}
    )
    unset = {"trim"} if spec.learning.trim is None else set()
    return {
        **ranged,
        **tenants,
        **({} if spec.prior is None else {"prior": spec.prior.model_dump()}),
        "baseline": spec.baseline,
        "weights": spec.reward.weights.model_dump(),
        "ceilings": spec.reward.ceilings.model_dump(exclude_none=True),
        "trusted": list(spec.reward.trusted),
        "exploration": spec.exploration.model_dump(),
        "learning": spec.learning.model_dump(exclude={"shards", *unset}),
        "prices": {knob: dict(levels) for knob, levels in spec.prices.items()},
        "guard": None if spec.guard is None else spec.guard.model_dump(mode="json"),
        "switch_cost": spec.switch_cost,
    }


def with_settings(spec: PolicySpec, settings: Mapping[str, Any]) -> PolicySpec:
    """The policy under other settings."""
    reward: RewardSpec = spec.reward.model_copy(
        update={
            "weights": Weights(**settings["weights"]),
            "ceilings": Ceilings(**settings["ceilings"]),
            "tenant_feature": settings.get("tenant_feature", TENANT_FEATURE),
            "tenant_ceilings": {tenant: Ceilings(**one) for tenant, one in settings.get("tenant_ceilings", {}).items()},
            "trusted": tuple(settings["trusted"]),
            "range": tuple(settings["range"]) if "range" in settings else None,
        }
    )
    return replace(
        spec,
        baseline=settings["baseline"],
        reward=reward,
        exploration=Exploration(**settings["exploration"]),
        learning=Learning(shards=spec.shards, **settings["learning"]),
        prices=settings["prices"],
        prior=PriorSpec(**settings["prior"]) if "prior" in settings else None,
        guard=None if settings["guard"] is None else GuardSpec(**settings["guard"]),
        switch_cost=settings["switch_cost"],
    )
