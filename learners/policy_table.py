"""One ``[[policy]]`` table of a policies file (`learners.policies_file`), and what must hold between its keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from steersman.arms import ArmSpace, level_text
from steersman.errors import ConfigError
from steersman.features import Categorical, Transform

from .guard_spec import GuardSpec
from .prior_spec import PriorSpec
from .registry import learner_class
from .spec import (
    MAX_TENANTS,
    NAME,
    POLICY_NAME,
    Exploration,
    Learning,
    Positive,
    RewardSpec,
    Sessions,
    Table,
)


class PolicyTable(Table):
    """As written; see `learners.policies_file`."""

    name: Annotated[str, Field(pattern=POLICY_NAME, max_length=200)]
    tenant: Annotated[str, Field(pattern=r"^[^\s/\x00-\x1f]+$", max_length=100)] = "default"
    learner: Annotated[str, Field(pattern=NAME)] = "linear"
    baseline: dict[str, Any]
    forbidden: list[dict[str, Any]] = Field(default_factory=list)
    knobs: dict[str, list[Any]]
    features: list[Transform] = Field(default_factory=list)
    reward: RewardSpec = RewardSpec()
    exploration: Exploration = Exploration()
    learning: Learning = Learning()
    prices: dict[str, dict[str, Positive]] = Field(default_factory=dict)
    prior: PriorSpec | None = None
    guard: GuardSpec | None = None
    sessions: Sessions = Sessions()


def check_ceilings(table: PolicyTable, at: tuple[str | int, ...], fail: Any) -> None:
    """That tenants with ceilings of their own can be told apart, and that the learner keeps those on tool calls."""
    reward = table.reward
    if reward.limits_tool_calls and not getattr(learner_class(table.learner), "TAKES_TOOL_CALLS", False):
        message = (
            f"the learner {table.learner!r} keeps no ceiling on tool_calls; take it out, or set the learner linear"
        )
        where = "ceilings" if reward.ceilings.tool_calls is not None else "tenant_ceilings"
        raise ConfigError(fail((*at, "reward", where), message))
    if not reward.tenant_ceilings:
        if "tenant_feature" in reward.model_fields_set:
            raise ConfigError(
                fail((*at, "reward", "tenant_feature"), "needs tenant_ceilings: nothing else looks at it")
            )
        return
    place = (*at, "reward", "tenant_ceilings")
    if len(reward.tenant_ceilings) > MAX_TENANTS:
        raise ConfigError(fail(place, f"{len(reward.tenant_ceilings)} tenants are more than {MAX_TENANTS}"))
    named = next((one for one in table.features if one.name == reward.tenant_feature), None)
    if not isinstance(named, Categorical):
        message = (
            f"needs a categorical feature {reward.tenant_feature!r} that says whose request it is, with the tenants as its "
            'values: add it under [[policy.features]], or name another one in tenant_feature = "..."'
        )
        raise ConfigError(fail(place, message))
    for tenant, ceilings in reward.tenant_ceilings.items():
        if tenant not in named.values:
            known = ", ".join(named.values)
            raise ConfigError(fail((*place, tenant), f"the feature {named.name!r} has no such value; it has {known}"))
        if not ceilings.model_dump(exclude_none=True):
            raise ConfigError(
                fail((*place, tenant), "sets no ceiling; set one, such as cost_micro_usd, or take it out")
            )


def checked_prior(table: PolicyTable, at: tuple[str | int, ...], fail: Any, arms: ArmSpace) -> PriorSpec | None:
    """The table of priors, checked."""
    if table.prior is None:
        return None
    if ":" in table.learner or not getattr(learner_class(table.learner), "TAKES_PRIOR", False):
        message = f"the learner {table.learner!r} starts from nothing; take this table out, or set the learner linear"
        raise ConfigError(fail((*at, "prior"), message))
    for component, knobs in table.prior.tables.items():
        _check_levels(knobs, (*at, "prior", component), fail, arms)
    return table.prior


def _check_levels(
    table: Mapping[str, Mapping[str, float]], at: tuple[str | int, ...], fail: Any, arms: ArmSpace
) -> None:
    """That what is said of levels, knob by knob, is said of such as there are."""
    for knob, levels in table.items():
        if knob not in arms.knobs:
            raise ConfigError(fail((*at, knob), f"no knob is called so; the knobs are {', '.join(arms.knobs)}"))
        known = [level_text(level) for level in arms.knobs[knob]]
        for level in levels:
            if level not in known:
                message = f"knob {knob} has no such level; its levels are {', '.join(known)}"
                raise ConfigError(fail((*at, knob, level), message))


def checked_prices(
    table: PolicyTable, at: tuple[str | int, ...], fail: Any, arms: ArmSpace
) -> dict[str, dict[str, float]]:
    """The prices, checked; and that nothing is asked of a policy in shards that needs its rewards in one order."""
    _check_levels(table.prices, (*at, "prices"), fail, arms)
    if table.learning.shards > 1:
        ordered = {
            ("reward", "ceilings"): bool(table.reward.ceilings.model_dump(exclude_none=True)),
            ("reward", "tenant_ceilings"): bool(table.reward.tenant_ceilings),
            ("learning", "half_life"): table.learning.half_life is not None,
            ("learning", "drift"): table.learning.drift and "drift" in table.learning.model_fields_set,
            ("prices",): bool(table.prices),
            ("reward", "quarantined"): bool(table.reward.quarantined),
        }
        for path, wanted in ordered.items():
            if wanted:
                message = "needs the policy's rewards in one order, which shards do not have; set [policy.learning] shards = 1"
                raise ConfigError(fail((*at, *path), message))
    return table.prices
