"""Ceilings of a policy and of single tenants in it, each with an account and a price of its own (`learners.pacing`).

A tenant here is whose request a decision is about, as one categorical feature of the context says: so the reward's x names it, the
router knows it when it decides, and its propensities stay exact. A tenant's ceilings hold on top of the policy's: its account
counts its own decisions, its price is solved for over its own latest contexts, beside the policy's prices, and the policy's
beside those of the tenants, in turns. There are no more accounts than tenants in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steersman.features import Categorical
from steersman.layout import Layout
from steersman.snapshot import CHARGED, TOOL_CALLS, PolicySnapshot
from steersman.squares import SQUARES

from .batch_scorer import BatchScorer
from .dual import Dual
from .pacing import Pacer, limits_of
from .spec import PolicySpec
from .tool_calls import ToolHead

Float = NDArray[np.float64]

CONTEXTS, NEWEST = 96, 32
"""Contexts of each tenant that its price is solved for, and how many of them lie in a state where those lay that had no more."""

_TURNS = 2


class TenantPacer:
    """All ceilings of a policy. One step a reward, in the order of the log.

    Parameters
    ----------
    spec : PolicySpec
    layout : Layout
        Of its heads.
    """

    def __init__(self, spec: PolicySpec, layout: Layout) -> None:
        self._layout = layout
        self._policy = Pacer(limits_of(spec.reward.ceilings), layout.n_arms, layout.dim)
        self._feature = ""
        self._columns: dict[str, int] = {}
        self._tenants: dict[str, Pacer] = {}
        self._began: dict[str, int] = {}  # rewards seen before the tenant's first could have been
        self._seen = 0
        self._tools: ToolHead | None = None
        self._set(spec)

    def _set(self, spec: PolicySpec) -> None:
        reward = spec.reward
        if reward.tenant_key != self._feature:
            self._feature, self._tenants, self._began = reward.tenant_key, {}, {}
        wanted = {tenant: limits_of(reward.tenant_ceilings[tenant]) for tenant in sorted(reward.tenant_ceilings)}
        kept = self._tenants
        self._tenants = {}
        for tenant, limits in wanted.items():
            pacer = kept.get(tenant)
            if pacer is None:
                pacer = Pacer(limits, self._layout.n_arms, self._layout.dim, CONTEXTS, NEWEST)
                self._began[tenant] = self._seen
            elif pacer.limits != limits:
                pacer.revise(limits)
            self._tenants[tenant] = pacer
        self._began = {tenant: self._began[tenant] for tenant in self._tenants}
        self._columns = _columns(spec, self._feature) if self._tenants else {}
        limited = any(limit.component == TOOL_CALLS for pacer in self._pacers() for limit in pacer.limits)
        if not limited:
            self._tools = None
        elif self._tools is None:
            self._tools = ToolHead(self._layout, spec.features)

    def _pacers(self) -> list[Pacer]:
        return [self._policy, *self._tenants.values()]

    @property
    def active(self) -> bool:
        """Whether there is any ceiling."""
        return bool(self._policy.limits or self._tenants)

    @property
    def feature(self) -> str:
        """The feature that names the tenant, empty without ceilings of tenants."""
        return self._feature

    @property
    def tools(self) -> ToolHead | None:
        """The head of tool calls, None while nothing limits them."""
        return self._tools

    def add(self, x: Sequence[float], arm: int, values: Mapping[str, float], lag: float, own: bool = True) -> None:
        """Take a reward into the accounts; as `Pacer.add`."""
        self._seen += 1
        if self._policy.limits:
            self._policy.add(x, arm, values, lag, own)
        for tenant, pacer in self._tenants.items():
            if x[self._columns[tenant]] > 0.0:
                # Of the rewards on their way, about so many are the tenant's.
                share = (pacer.seen + 1) / (self._seen - self._began[tenant])
                pacer.add(x, arm, values, lag * min(share, 1.0) if lag >= 0 else lag, own)
                break

    def charged(self, snapshot: PolicySnapshot) -> PolicySnapshot:
        """A snapshot that charges nothing with what its ceilings charge: prices, and for steady ones the squares of use."""
        scorer = BatchScorer(snapshot)
        whole = Dual(self._policy, scorer) if self._policy.seen and self._policy.limits else None
        single = {tenant: Dual(pacer, scorer) for tenant, pacer in self._tenants.items() if pacer.seen}
        for _ in range(_TURNS if whole and single else 1):
            if whole:
                whole.solve(self._charged(whole, single) if single else None)
            for dual in single.values():
                dual.solve(None if whole is None else whole.charge_on(dual))
        multipliers = whole.multipliers(snapshot) if whole else ()
        multipliers += tuple(
            replace(multiplier, tenant=tenant)
            for tenant, dual in single.items()
            for multiplier in dual.multipliers(snapshot)
        )
        tensors = dict(snapshot.tensors)
        if any(limit.steady for pacer in self._pacers() for limit in pacer.limits):
            squares = np.zeros((1 + len(snapshot.tenants), len(CHARGED), 2), dtype=np.float32)
            for row, found in enumerate([whole, *(single.get(tenant) for tenant in snapshot.tenants)]):
                if found is not None:
                    squares[row] = found.squares()
            tensors[SQUARES] = squares
        return replace(snapshot, multipliers=multipliers, tensors=tensors)

    def _charged(self, whole: Dual, single: Mapping[str, Dual]) -> Float:
        """What the policy's contexts are charged for their tenants' ceilings, (n, K)."""
        charge = np.zeros((len(whole.x), self._layout.n_arms))
        for tenant, dual in single.items():
            rows = whole.x[:, self._columns[tenant]] > 0.0
            if rows.any() and dual.prices.any():
                charge[rows] = dual.charge_on(whole)[rows]
        return charge

    def accounts(self) -> dict[str, dict[str, float]]:
        """What is overspent (below 0: saved up) by tenant (empty for the policy's own) and ceiling, in ceilings."""
        return {"": self._policy.accounts()} | {tenant: pacer.accounts() for tenant, pacer in self._tenants.items()}

    def revise(self, spec: PolicySpec) -> None:
        """Go on under other ceilings: the accounts of those that moved begin anew."""
        self._policy.revise(limits_of(spec.reward.ceilings))
        self._set(spec)

    def dump(self) -> tuple[list[Any], Float]:
        """Return all that `load` needs: JSON-ready values, and numbers (float64, flat)."""
        if not self.active:
            return [], np.zeros(0)
        values, numbers = self._policy.dump()
        if not self._tenants and self._tools is None:
            return values, numbers
        parts, tenants = [numbers], []
        for tenant, pacer in self._tenants.items():
            own, more = pacer.dump()
            tenants.append([tenant, self._began[tenant], *own])
            parts.append(more)
        arms: list[int] = []
        if self._tools is not None:
            arms, more = self._tools.dump()
            parts.append(more)
        return [*values, {"seen": self._seen, "tenants": tenants, "arms": arms}], np.concatenate(parts)

    def more(self) -> dict[str, list[Any]]:
        """Return what `load` needs beside `dump`, by tenant (empty for the policy's own), JSON-ready; nothing without ceilings."""
        if not self.active:
            return {}
        return {"": self._policy.more()} | {tenant: pacer.more() for tenant, pacer in self._tenants.items()}

    def load(self, values: Sequence[Any], numbers: Float, beside: Mapping[str, Sequence[Any]]) -> None:
        """Inverse of `dump` and `more` (nothing where an earlier release wrote the state), under the same ceilings; ValueError when the shapes differ."""
        if not values:
            return
        at = self._policy.size
        self._policy.load(values[:3], numbers[:at], beside.get("", ()))
        if len(values) == 3:
            return
        more = values[3]
        self._seen = more["seen"]
        for tenant, began, *own in more["tenants"]:
            pacer = self._tenants[tenant]
            self._began[tenant] = began
            pacer.load(own, numbers[at : at + pacer.size], beside.get(tenant, ()))
            at += pacer.size
        if self._tools is not None:
            self._tools.load(more["arms"], numbers[at:])


def _columns(spec: PolicySpec, feature: str) -> dict[str, int]:
    """Column of x by tenant."""
    found = next(one for one in spec.features.features if one.name == feature)
    values = found.values if isinstance(found, Categorical) else ()
    first = spec.features.column(feature)
    return {tenant: first + i for i, tenant in enumerate(values)}
