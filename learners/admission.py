"""Which rewards a learner learns from, and whether it listens to what they say of the quality. Pure, one reward at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .source_names import hashed
from .spec import PolicySpec

MAX_QUALITY = 1e6
"""A quality beyond this is taken for garbage."""

UNHEARD = ("quarantined", "out_of_range")
"""Why nobody is to listen to what a reward says of the quality."""


def unfit(spec: PolicySpec, reward: Mapping[str, Any], since: int) -> str:
    """Why a reward cannot be learned from; empty when it can.

    Parameters
    ----------
    spec : PolicySpec
    reward : mapping
        A reward record.
    since : int
        First epoch whose decisions are learned from.
    """
    features = reward["features"]
    if reward["tenant"] != spec.tenant or reward["policy"] != spec.name:
        return "other_policy"
    if reward["reward_spec"] != spec.reward_hash:
        return "other_reward_spec"
    if not len(features):
        return "fallback" if reward["mode"] == "FALLBACK" else "no_features"
    decided_in = reward["policy_epoch"]
    if decided_in is not None and decided_in < since:
        return "other_epoch"
    if reward["arm"] not in spec.arms:
        return "unknown_arm"
    if len(features) != spec.features.dim:
        return "wrong_dims"
    # The norm bounds every entry and is not finite if one of them is not: one pass is enough for nearly all.
    if features[-1] != 1.0 or not (math.hypot(*features) <= 1e3 or _within(features, 1e3)):
        return "bad_features"
    quality = reward["quality"]
    if quality is not None and not abs(quality) <= MAX_QUALITY:
        return "not_finite"
    finite = math.isfinite
    if finite(reward["cost_micro_usd"]) and finite(reward["latency_us"]) and finite(reward["failures"]):
        return ""
    return "not_finite"


def _within(values: Sequence[float], limit: float) -> bool:
    # min and max may pass over a NaN, a sum does not
    return min(values) >= -limit and max(values) <= limit and not math.isnan(sum(values))


def unheard(spec: PolicySpec, reward: Mapping[str, Any]) -> str:
    """Why nobody is to listen to what a reward says of the quality, one of `UNHEARD`; empty when there is nothing against it.

    ``quarantined``: its source is in quarantine. ``out_of_range``: it is outside the range declared for the metric.
    """
    quality = reward["quality"]
    if quality is None:
        return ""
    if spec.quarantine and (source := reward.get("source")) is not None and hashed(source) in spec.quarantine:
        return "quarantined"
    span = spec.reward.range
    if span is not None:
        whole = reward.get("trace_quality")  # under the credit rule shared, what the judge said
        if not span[0] <= (quality if whole is None else whole) <= span[1]:
            return "out_of_range"
    return ""
