"""One decision point: arms, what is known when deciding, what a decision is worth, how to explore and to learn.

`learners.policies_file` reads them from ``policies.toml`` and says what every key means.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from steersman.arms import ArmSpace
from steersman.features import FeatureSpec

from .detector_settings import PenaltyName
from .guard_spec import GuardSpec
from .peers import Peer
from .prior_spec import PriorSpec
from .shard_keys import MAX_SHARDS, shard_key, shard_of
from .source_names import hashed_all

NAME = r"^[^\s\x00-\x1f]+$"
POLICY_NAME = r"^[^\s\x00-\x1f#]+$"  # '#' sets the number of a shard apart
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Table(BaseModel):
    """A table of the file: what it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Weights(Table):
    """Weights of the components in the utility, each >= 0; cost, latency and failures are subtracted."""

    quality: Weight = 1.0
    cost: Weight = 0.0
    latency: Weight = 0.0
    failures: Weight = 0.0


class Scales(Table):
    """What one unit of cost (millionths of a US dollar) and latency (microseconds) is in the utility."""

    cost_micro_usd: Positive = 10_000.0
    latency_us: Positive = 10_000_000.0


MEANS = ("cost_micro_usd", "latency_us", "failures", "tool_calls")
"""Ceilings on means."""


class Ceilings(Table):
    """Upper limits of means, and of the 95th and 99th percentile of the latency; None is no limit.

    `steady`: the means are aims, which decisions are kept near one by one; None where they are upper limits.
    """

    cost_micro_usd: Positive | None = None
    latency_us: Positive | None = None
    latency_us_p95: Positive | None = None
    latency_us_p99: Positive | None = None
    failures: Positive | None = None
    tool_calls: Positive | None = None
    steady: Annotated[bool | None, AfterValidator(lambda on: on or None)] = None

    @model_validator(mode="after")
    def _steadied(self) -> Self:
        if self.steady and all(getattr(self, name) is None for name in MEANS):
            raise ValueError(f"steady needs a ceiling on a mean: {', '.join(MEANS)}")
        return self


TENANT_FEATURE = "tenant"
"""The feature that says whose request it is, where `tenant_feature` does not name another."""

MAX_TENANTS = 32
"""Tenants of one policy with ceilings of their own: each has an account and prices, in the state and in every snapshot."""


class RewardSpec(Table):
    """What a decision is worth, and when that is settled. Units: window_s seconds, settle_ms milliseconds."""

    metric: Annotated[str, Field(pattern=NAME, max_length=200)] = "quality"
    aggregation: Literal["first", "last", "max", "mean"] = "first"
    default: Annotated[float, Field(allow_inf_nan=False)] | None = None
    window_s: Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False)] = 3600.0
    settle_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 200
    credit: Literal["subtree", "trace"] = "subtree"
    quality_credit: Literal["own", "shared", "difference"] = "own"
    share: Positive = 1.0
    peers: tuple[Annotated[str, Field(pattern=POLICY_NAME, max_length=200)], ...] = ()
    clip: Positive = 100.0
    penalties: list[PenaltyName] = []
    weights: Weights = Weights()
    scales: Scales = Scales()
    ceilings: Ceilings = Ceilings()
    tenant_feature: Annotated[str, Field(pattern=NAME, max_length=200)] = TENANT_FEATURE
    tenant_ceilings: dict[str, Ceilings] = {}
    trusted: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    quarantined: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = ()
    range: tuple[Finite, Finite] | None = None

    def utility(self, quality: float, cost_micro_usd: float, latency_us: float, failures: float) -> float:
        """Weighted sum of the components (see the module)."""
        w, s = self.weights, self.scales
        return (
            w.quality * quality
            - w.cost * cost_micro_usd / s.cost_micro_usd
            - w.latency * latency_us / s.latency_us
            - w.failures * failures
        )

    def decides(self, component: str) -> bool:
        """Whether a component (quality, cost, latency or failures) has a weight or a ceiling."""
        limits = (one.model_dump(exclude_none=True) for one in (self.ceilings, *self.tenant_ceilings.values()))
        return getattr(self.weights, component) > 0 or any(name.startswith(component) for one in limits for name in one)

    @property
    def tenant_key(self) -> str:
        """The feature that names the tenant, empty where no tenant has ceilings of its own."""
        return self.tenant_feature if self.tenant_ceilings else ""

    @property
    def limits_tool_calls(self) -> bool:
        """Whether any ceiling is on tool calls."""
        return any(one.tool_calls is not None for one in (self.ceilings, *self.tenant_ceilings.values()))

    @property
    def hash(self) -> str:
        """16 hex digits over what defines the components; weights and ceilings may change without unlearning."""
        keys = ["metric", "aggregation", "default", "window_s", "credit", "clip", "scales"]
        if self.quality_credit != "own":  # else the hash is what it was before there were other rules
            keys += ["quality_credit", "share" if self.quality_credit == "shared" else "peers"]
        defined = {key: self.model_dump()[key] for key in keys}
        if self.penalties:  # without any, it is the hash that such a spec has always had
            defined["penalties"] = sorted(set(self.penalties))
        return digest(defined)

    @model_validator(mode="after")
    def _credited(self) -> Self:
        rule = self.quality_credit
        if (rule == "difference") != bool(self.peers):
            raise ValueError('quality_credit = "difference" and peers = [...] need each other')
        if "share" in self.model_fields_set and rule != "shared":
            raise ValueError('share needs quality_credit = "shared"')
        if len(set(self.peers)) != len(self.peers):
            raise ValueError("a peer is listed twice")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError("range is [lowest, highest]")
        return self


class Exploration(Table):
    """How to explore; None is the learner's own rule, or the default of `learners.exploring`."""

    kind: Literal["maillard", "thompson", "igw", "softmax", "ucb", "greedy"] | None = None
    scale: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    floor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None


class Learning(Table):
    """How many learners share the rewards of the policy (shard k of N has the source partitions that are k modulo N), what they
    forget, and what they believe. Unit of half_life: rewards."""

    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS, strict=True)] = 1
    half_life: Annotated[float, Field(ge=100, allow_inf_nan=False)] | None = None
    drift: bool = True
    robust: bool = True
    trim: Annotated[float, Field(gt=0, le=0.25, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.trim is not None and not self.robust:
            raise ValueError("trim needs robust = true")
        return self


class Sessions(Table):
    """When a session changes its arm: only for an advantage above the cost, in utility; None: at every decision."""

    switch_cost: Weight | None = None


@dataclass(frozen=True)
class PolicySpec:
    """One decision point: its arms, what is known when deciding, what a decision is worth, how to explore.

    Parameters
    ----------
    tenant, name : str
        ``key`` is "tenant/name".
    arms : ArmSpace
    baseline : str
        Label of the arm a service takes without us.
    features, reward, exploration
        As in the file.
    learner : str
        Name in `learners.catalog`.
    shards : int
        Learners that share the policy's rewards.
    learning : Learning
        As in the file; its `shards` is not looked at.
    prices : mapping of str to mapping of str to float
        Knob -> text of a level -> what it costs, in any one unit.
    prior : PriorSpec, optional
        What is expected of levels before the first reward.
    peers : tuple of Peer
        The policies that `reward.peers` names; `Policies` fills them in.
    is_peer : bool
        Whether another policy's rewards name the decisions of this one; `Policies` finds that out.
    guard : GuardSpec, optional
        How the policy earns the right to decide; None: it has it from the start.
    switch_cost : float, optional
        Advantage in utility above which a session changes its arm; None: no arm is kept.
    """

    tenant: str
    name: str
    arms: ArmSpace
    baseline: str
    features: FeatureSpec = field(default_factory=FeatureSpec)
    reward: RewardSpec = field(default_factory=RewardSpec)
    exploration: Exploration = field(default_factory=Exploration)
    learner: str = "linear"
    shards: int = 1
    learning: Learning = field(default_factory=Learning)
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    prior: PriorSpec | None = None
    peers: tuple[Peer, ...] = ()
    is_peer: bool = False
    guard: GuardSpec | None = None
    switch_cost: float | None = None

    def __post_init__(self) -> None:
        self.arms.index(self.baseline)

    @property
    def key(self) -> str:
        """``tenant/name``, the key of its snapshots, and of its rewards unless it is sharded."""
        return f"{self.tenant}/{self.name}"

    def reward_key(self, source_partition: int) -> str:
        """Key of the rewards of a source partition: the policy's own, or that of the shard that learns them."""
        return self.key if self.shards == 1 else shard_key(self.key, shard_of(source_partition, self.shards))

    @property
    def learned_by(self) -> str:
        """Name of the learner, how many there are, and whom they leave out: ``linear``, ``linear*4``, ``linear without 2 sources 9f31c2d4``."""
        name = self.learner if self.shards == 1 else f"{self.learner}*{self.shards}"
        if not self.quarantine:
            return name
        count = len(self.quarantine)
        return f"{name} without {count} source{'s' * (count > 1)} {digest(self.quarantine)[:8]}"

    @cached_property
    def quarantine(self) -> tuple[str, ...]:
        """Sources in quarantine, hashed and sorted."""
        return hashed_all(self.reward.quarantined)

    @cached_property
    def reward_hash(self) -> str:
        """16 hex digits of what defines the reward components; the arms of peers belong to it."""
        if not self.peers:
            return self.reward.hash
        return digest([self.reward.hash, [peer.to_record() for peer in self.peers]])

    @cached_property
    def columns(self) -> str:
        """16 hex digits of what an arm's sums mean: features, reward components and learner."""
        return digest([self.reward_hash, self.features.model_dump(), self.learned_by])

    @cached_property
    def lineage(self) -> str:
        """16 hex digits of all that an epoch rests on: components, features, arms, learner and number of shards."""
        return lineage_of(self.reward_hash, self.features, self.arms.to_record(), self.learned_by)


def lineage_of(reward_hash: str, features: FeatureSpec, arms: Mapping[str, Any], learner: str) -> str:
    """16 hex digits of what an epoch rests on; `arms` and `learner` are the record forms, as in a policy snapshot."""
    return digest([reward_hash, features.model_dump(), arms, learner])


def digest(value: Any) -> str:
    """16 hex digits of a JSON-ready value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
