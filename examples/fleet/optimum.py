"""The best that any policy could do in the world model, and what a run fell short of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from examples.fleet.query import Query
from examples.fleet.world import (
    ARMS,
    COST_SCALE_MICRO_USD,
    DOCUMENT_TOKENS,
    KNOBS,
    LATENCY_SCALE_US,
    SHARE,
    Floats,
    Level,
    Means,
    Upstream,
    arm_index,
    means,
)

Setting = Mapping[str, Mapping[str, Level]]


@dataclass(frozen=True, slots=True)
class Expected:
    """Expected quality (0..1), cost (micro-USD), latency (microseconds) and utility of one interaction."""

    quality: float
    cost_micro_usd: float
    latency_us: float
    utility: float


def utilities(role: str, expected: Means) -> Floats:
    """Return what each arm adds to the interaction's utility, shape (K,)."""
    return SHARE[role] * expected.quality - expected.cost / COST_SCALE_MICRO_USD - expected.latency / LATENCY_SCALE_US


def upstream_of(setting: Setting) -> tuple[Upstream, Upstream]:
    """Return what retrieval and what synthesis see of the decisions taken before them."""
    subagents = int(setting["orchestrator"]["subagents"])
    found = int(DOCUMENT_TOKENS[arm_index("retrieval", setting["retrieval"])])
    return Upstream(subagents), Upstream(subagents, found)


def expected(query: Query, setting: Setting) -> Expected:
    """Return the expected outcome of one interaction under one joint setting (role -> arm)."""
    search, write = upstream_of(setting)
    quality = cost = latency = utility = 0.0
    for role, upstream in (
        ("orchestrator", Upstream()),
        ("retrieval", search),
        ("synthesis", write),
        ("citation", write),
    ):
        step, i = means(role, query, upstream), arm_index(role, setting[role])
        quality += SHARE[role] * float(step.quality[i])
        cost += float(step.cost[i])
        latency += float(step.latency[i])
        utility += float(utilities(role, step)[i])
    return Expected(quality, cost, latency, utility)


def optimum(query: Query) -> dict[str, dict[str, Level]]:
    """Return the joint setting of highest expected utility, found exactly, knowing the true complexity.

    The steps add up, and depend on each other only through the number of search workers (retrieval) and the
    documents found (synthesis), so that it is enough to enumerate those two.
    """
    plan = utilities("orchestrator", means("orchestrator", query))
    cite = utilities("citation", means("citation", query))
    found, which = np.unique(DOCUMENT_TOKENS, return_inverse=True)
    written = [utilities("synthesis", means("synthesis", query, Upstream(1, int(n)))) for n in found]
    write_best = np.array([w.max() for w in written])
    best_value, best = -np.inf, (0, 0)
    for subagents in KNOBS["orchestrator"]["subagents"]:
        workers = int(subagents)
        plans = np.array([arm["subagents"] == subagents for arm in ARMS["orchestrator"]])
        plan_arm = int(np.where(plans, plan, -np.inf).argmax())
        search = utilities("retrieval", means("retrieval", query, Upstream(workers))) + write_best[which]
        search_arm = int(search.argmax())
        value = float(plan[plan_arm] + search[search_arm])
        if value > best_value:
            best_value, best = value, (plan_arm, search_arm)
    write_arm = int(written[int(which[best[1]])].argmax())
    return {
        "orchestrator": dict(ARMS["orchestrator"][best[0]]),
        "retrieval": dict(ARMS["retrieval"][best[1]]),
        "synthesis": dict(ARMS["synthesis"][write_arm]),
        "citation": dict(ARMS["citation"][int(cite.argmax())]),
    }
