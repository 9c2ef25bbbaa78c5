"""Policies as people write them: ``policies.toml``, checked, with errors that name file, line and key.

One ``[[policy]]`` per decision point. Every key, with its default (no default: required):

.. code-block:: toml

    [[policy]]
    name = "research/retrieval"            # free of whitespace and '#'; "tenant/name" is its key everywhere
    tenant = "default"
    learner = "linear"                     # a name of learners.catalog; neural needs torch where the workers run; of squarecb with
                                           #   a regressor of River: see there
    baseline = { model = "large", top_k = 8 }   # an allowed arm: what a service does without us
    forbidden = [{ model = "small", top_k = 16 }]   # default []; each may name some of the knobs

    [policy.knobs]                         # at least one; levels are strings, numbers or booleans
    model = ["small", "large"]
    top_k = [4, 8, 16]

    [[policy.features]]                    # none: the policy ignores the context. kind is one of
    kind = "numeric"                       #   numeric: (value - mean) / scale, of log(1 + value) when log
    name = "complexity"
    mean = 0.0
    scale = 1.0
    log = false
    [[policy.features]]
    kind = "categorical"                   #   categorical: one column per value; other values give zeros
    name = "domain"
    values = ["law", "news"]
    [[policy.features]]
    kind = "embedding"                     #   embedding: dim numbers, each divided by scale
    name = "prompt_embedding"
    dim = 25
    scale = 1.0
    [[policy.features]]
    kind = "text"                          #   text: words and word pairs hashed into dim columns, and with marks three
    name = "prompt"                        #   more: length, code and mathematics (steersman.features.Text)
    dim = 32
    marks = true

    [policy.reward]
    metric = "quality"                     # the feedback metric that is the quality
    aggregation = "first"                  # first | last | max | mean of its feedback events
    default = 0.0                          # quality when none came in the window; left out: such rewards teach no quality
    window_s = 3600.0                      # seconds from the decision within which feedback counts
    settle_ms = 200                        # milliseconds to wait for stragglers once end and feedback have come
    credit = "subtree"                     # subtree (the enclosing span's) | trace: what cost, latency, failures add up over
    quality_credit = "own"                 # own | shared | difference: what of a trace's quality is a decision's; see below
    share = 1.0                            # shared: weight of a decision in the split, above 0
    peers = ["research/synthesis"]         # difference: policies of this file, of the same tenant, whose decisions in the same
                                           #   trace are taken out of the account
    clip = 100.0                           # cost and latency beyond so many scales teach no more than that
    penalties = []                         # detectors (learners.detector_settings) whose hits count as one failure each
    weights = { quality = 1.0, cost = 0.0, latency = 0.0, failures = 0.0 }    # each >= 0
    scales = { cost_micro_usd = 10000.0, latency_us = 10000000.0 }            # required where the weight is not 0
    ceilings = { cost_micro_usd = 5000.0 } # default none; upper limits of a mean: cost_micro_usd, latency_us, failures; of the
                                           # latency of all but 5 or 1 % of the decisions: latency_us_p95, latency_us_p99
    trusted = ["judge"]                    # default []; sources of feedback whose number of judgements is not bounded

    [policy.exploration]
    kind = "maillard"                      # maillard | thompson | igw | softmax | ucb | greedy; left out: the learner's own
    scale = 0.2                            # how widely, in the rule's unit; left out: see learners.exploring
    floor = 0.02                           # probability shared evenly by all eligible arms, in 0..1; left out: 0.02 at first,
                                           # falling as 1 / rewards to 0.001; with greedy 0.05

    [policy.learning]
    shards = 1                             # learners that share the policy's rewards, 1..64; another number begins an epoch
    half_life = 20000.0                    # default none; rewards after which what was learned counts half
    drift = true                           # default false; whether a change of the world is looked for (learners.drift)
    robust = true                          # whether the influence of single judgements, sources and contexts is bounded

    [policy.prices.model]                  # default none; what levels of a knob cost, in any one unit: when it changes, what was
    small = 0.15                           # learned of costs changes in proportion, at once
    large = 3.0

Ceilings, half_life, drift and prices need the rewards in one order, so they cannot be had with shards.

and once for the file, with defaults for everything, ``[detectors]``: see `learners.detector_settings`.

    [policy.guard]                         # left out: the policy is live from its first snapshot. learners/guard.py has the rules
    start = "apprentice"                   # apprentice | shadow | canary | live: where a policy begins
    apprentice = 200                       # rewards of the service's own choices to learn from before shadow
    shadow = 100                           # rewards in shadow before the first canary
    shares = [0.1, 0.5]                    # shares of the traces that follow the policy in canary, step by step
    control = 0.1                          # share of the traces that keeps the baseline when live; 0: the routers' holdout does
    alpha = 0.05                           # chance of ever going live with a policy that is no better
    false_alarm = 0.001                    # one in so many comparisons rolls back a policy that is as good as the baseline
    tolerance = 0.1                        # standard deviations of a reward that a policy may be worse
    quality_span = 1.0                     # largest minus smallest quality that can be
    cooldown = 500                         # rewards in shadow after a rollback, doubled at each further one
    freeze = false                         # true: publish nothing new until this is taken out

    [policy.sessions]
    switch_cost = 0.05                     # utility; a session keeps its arm unless another is better by more. Left out: never kept

utility = weights.quality * quality - weights.cost * cost_micro_usd / scales.cost_micro_usd
- weights.latency * latency_us / scales.latency_us - weights.failures * failures

`credit` says what a decision is charged with, `quality_credit` what it is praised for when several decisions made one result:

- ``own``: feedback aimed at the decision, its span or the whole trace, in full. For steps that are judged one by one.
- ``shared``: feedback on the whole trace only, split by `share` between the decisions of the trace that share its metric; the
  shares add up to it. A decision then sees only its share of what it changes: with n even shares, ``weights.quality = n`` weighs
  a change as the trace does.
- ``difference``: in full as ``own``, less what the learner's model says that the peers' choices did: a decision is compared with its
  baseline arm, the others as they were (`learners.peers`). With ``credit = "trace"`` for cost and latency too. Says the most
  where only whole traces are judged.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from steersman.arms import ArmSpace, level_text
from steersman.errors import ConfigError
from steersman.features import FeatureSpec, Transform

from .catalog import LEARNERS
from .detector_settings import DetectorSettings, PenaltyName
from .guard_spec import GuardSpec
from .peers import MAX_COLUMNS, Peer, peer_columns
from .registry import learner_class
from .shards import MAX_SHARDS, shard_key, shard_of
from .toml_lines import key_lines, line_of

_NAME = r"^[^\s\x00-\x1f]+$"
_POLICY_NAME = r"^[^\s\x00-\x1f#]+$"  # '#' sets the number of a shard apart
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Weights(_Table):
    """Weights of the components in the utility, each >= 0; cost, latency and failures are subtracted."""

    quality: _Weight = 1.0
    cost: _Weight = 0.0
    latency: _Weight = 0.0
    failures: _Weight = 0.0


class Scales(_Table):
    """What one unit of cost (millionths of a US dollar) and latency (microseconds) is in the utility."""

    cost_micro_usd: _Positive = 10_000.0
    latency_us: _Positive = 10_000_000.0


class Ceilings(_Table):
    """Upper limits of means, and of the 95th and 99th percentile of the latency; None is no limit."""

    cost_micro_usd: _Positive | None = None
    latency_us: _Positive | None = None
    latency_us_p95: _Positive | None = None
    latency_us_p99: _Positive | None = None
    failures: _Positive | None = None


class RewardSpec(_Table):
    """What a decision is worth, and when that is settled. Units: window_s seconds, settle_ms milliseconds."""

    metric: Annotated[str, Field(pattern=_NAME, max_length=200)] = "quality"
    aggregation: Literal["first", "last", "max", "mean"] = "first"
    default: Annotated[float, Field(allow_inf_nan=False)] | None = None
    window_s: Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False)] = 3600.0
    settle_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 200
    credit: Literal["subtree", "trace"] = "subtree"
    quality_credit: Literal["own", "shared", "difference"] = "own"
    share: _Positive = 1.0
    peers: tuple[Annotated[str, Field(pattern=_POLICY_NAME, max_length=200)], ...] = ()
    clip: _Positive = 100.0
    penalties: list[PenaltyName] = []
    weights: Weights = Weights()
    scales: Scales = Scales()
    ceilings: Ceilings = Ceilings()
    trusted: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()

    def utility(self, quality: float, cost_micro_usd: float, latency_us: float, failures: float) -> float:
        """Weighted sum of the components (see the module)."""
        w, s = self.weights, self.scales
        return (
            w.quality * quality
            - w.cost * cost_micro_usd / s.cost_micro_usd
            - w.latency * latency_us / s.latency_us
            - w.failures * failures
        )

    @property
    def hash(self) -> str:
        """16 hex digits over what defines the components; weights and ceilings may change without unlearning."""
        keys = ["metric", "aggregation", "default", "window_s", "credit", "clip", "scales"]
        if self.quality_credit != "own":  # else the hash is what it was before there were other rules
            keys += ["quality_credit", "share" if self.quality_credit == "shared" else "peers"]
        defined = {key: self.model_dump()[key] for key in keys}
        if self.penalties:  # without any, it is the hash that such a spec has always had
            defined["penalties"] = sorted(set(self.penalties))
        return _hash(defined)

    @model_validator(mode="after")
    def _credited(self) -> Self:
        rule = self.quality_credit
        if (rule == "difference") != bool(self.peers):
            raise ValueError('quality_credit = "difference" and peers = [...] need each other')
        if "share" in self.model_fields_set and rule != "shared":
            raise ValueError('share needs quality_credit = "shared"')
        if len(set(self.peers)) != len(self.peers):
            raise ValueError("a peer is listed twice")
        return self


class Exploration(_Table):
    """How to explore; None is the learner's own rule, or the default of `learners.exploring`."""

    kind: Literal["maillard", "thompson", "igw", "softmax", "ucb", "greedy"] | None = None
    scale: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    floor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None


class Learning(_Table):
    """How many learners share the rewards of the policy (shard k of N has the source partitions that are k modulo N), what they
    forget, and what they believe. Unit of half_life: rewards."""

    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS, strict=True)] = 1
    half_life: Annotated[float, Field(ge=100, allow_inf_nan=False)] | None = None
    drift: bool = False
    robust: bool = True


class Sessions(_Table):
    """When a session changes its arm: only for an advantage above the cost, in utility; None: at every decision."""

    switch_cost: _Weight | None = None


class _PolicyTable(_Table):
    name: Annotated[str, Field(pattern=_POLICY_NAME, max_length=200)]
    tenant: Annotated[str, Field(pattern=r"^[^\s/\x00-\x1f]+$", max_length=100)] = "default"
    learner: Annotated[str, Field(pattern=_NAME)] = "linear"
    baseline: dict[str, Any]
    forbidden: list[dict[str, Any]] = []
    knobs: dict[str, list[Any]]
    features: list[Transform] = []
    reward: RewardSpec = RewardSpec()
    exploration: Exploration = Exploration()
    learning: Learning = Learning()
    prices: dict[str, dict[str, _Positive]] = {}
    guard: GuardSpec | None = None
    sessions: Sessions = Sessions()


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
        """Name of the learner and how many there are: ``linear``, ``linear*4``."""
        return self.learner if self.shards == 1 else f"{self.learner}*{self.shards}"

    @cached_property
    def reward_hash(self) -> str:
        """16 hex digits of what defines the reward components; the arms of peers belong to it."""
        if not self.peers:
            return self.reward.hash
        return _hash([self.reward.hash, [peer.to_record() for peer in self.peers]])

    @cached_property
    def columns(self) -> str:
        """16 hex digits of what an arm's sums mean: features, reward components and learner."""
        return _hash([self.reward_hash, self.features.model_dump(), self.learned_by])

    @cached_property
    def lineage(self) -> str:
        """16 hex digits of all that an epoch rests on: components, features, arms, learner and number of shards."""
        return lineage_of(self.reward_hash, self.features, self.arms.to_record(), self.learned_by)


def lineage_of(reward_hash: str, features: FeatureSpec, arms: Mapping[str, Any], learner: str) -> str:
    """16 hex digits of what an epoch rests on; `arms` and `learner` are the record forms, as in a policy snapshot."""
    return _hash([reward_hash, features.model_dump(), arms, learner])


class Policies:
    """The policies of a file, by tenant and name; iterates over them in file order.

    Raises
    ------
    ValueError
        When a policy names a peer that is not among them.
    """

    def __init__(
        self, specs: Mapping[str, PolicySpec] | None = None, detectors: DetectorSettings | None = None
    ) -> None:
        given = dict(specs or {})
        named = {f"{spec.tenant}/{peer}" for spec in given.values() for peer in spec.reward.peers}
        if unknown := sorted(named - given.keys()):
            raise ValueError(f"a policy names the peer {unknown[0]!r}, which is not among the policies")
        self._specs = {key: _in_company(spec, given, key in named) for key, spec in given.items()}
        self.detectors = detectors or DetectorSettings()
        """The ``[detectors]`` table of the file."""
        self.generation = 0
        """How often they have changed."""

    def become(self, others: Policies) -> list[str]:
        """Change into other policies while everything runs, as far as that is possible; returns what is not, in words.

        A policy that the others lack goes on, for its rewards may still be on their way. Of a policy in shards, lineage and number
        of shards stay: its parts are in several workers, which do not change at the same time.
        """
        refused = [
            f"{key} is no longer in the file: it goes on until the workers start again"
            for key in self._specs.keys() - others._specs
        ]
        specs = dict(self._specs)
        for key, spec in others._specs.items():
            held = specs.get(key)
            if held is not None and held.lineage != spec.lineage and max(held.shards, spec.shards) > 1:
                refused.append(
                    f"{key} is learned in shards: arms, features, components and shards change when all workers start again"
                )
                continue
            specs[key] = spec
        if specs != self._specs:
            self._specs = specs
            self.generation += 1
        return sorted(refused)

    @classmethod
    def of(cls, *specs: PolicySpec) -> Policies:
        """Policies made in code."""
        return cls({spec.key: spec for spec in specs})

    def get(self, tenant: str, policy: str) -> PolicySpec | None:
        """The spec of a tenant's policy, None when there is none."""
        return self._specs.get(f"{tenant}/{policy}")

    def by_key(self, key: str) -> PolicySpec | None:
        """The spec with this key ("tenant/name"), None when there is none."""
        return self._specs.get(key)

    def reward_key(self, tenant: str, policy: str, source_partition: int) -> str:
        """Key of a reward of a source partition; ``tenant/policy`` when there is no such policy."""
        spec = self.get(tenant, policy)
        return f"{tenant}/{policy}" if spec is None else spec.reward_key(source_partition)

    def __iter__(self) -> Iterator[PolicySpec]:
        return iter(self._specs.values())

    def __len__(self) -> int:
        return len(self._specs)


def load_policies(path: str | Path) -> Policies:
    """Read and check a policies file.

    Raises
    ------
    ConfigError
        Names the file, the line, the key path and what to do; lists every problem found by the first failing check.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}); set STEERSMAN_POLICIES to your policies file") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {e.start})") from e
    return parse_policies(text, str(path))


def parse_policies(text: str, source: str = "policies.toml") -> Policies:
    """As `load_policies`, from the text of a file; `source` names it in errors."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        found = re.search(r"line (\d+)", str(e))
        where = f":{found[1]}" if found else f":{text.count(chr(10)) + 1}"
        raise ConfigError(f"{source}{where}: not TOML: {e}") from e
    lines = key_lines(text)

    def fail(path: tuple[str | int, ...], message: str) -> str:
        key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
        return f"{source}:{line_of(lines, path)}: {key}: {message}"

    unknown = [
        fail((key,), "unknown key; a policies file holds [[policy]] tables")
        for key in document
        if key not in ("policy", "detectors")
    ]
    if unknown:
        raise ConfigError("\n".join(unknown))
    try:
        detectors = DetectorSettings.model_validate(document.get("detectors", {}))
    except ValidationError as e:
        raise ConfigError("\n".join(fail(("detectors", *p["loc"]), _say(p)) for p in e.errors())) from e
    tables = document.get("policy", [])
    if not isinstance(tables, list) or not tables:
        raise ConfigError(f"{source}:1: holds no policy; write at least one [[policy]] table")
    specs: dict[str, PolicySpec] = {}
    for i, table in enumerate(tables):
        at: tuple[str | int, ...] = ("policy", i)
        try:
            parsed = _PolicyTable.model_validate(table)
        except ValidationError as e:
            raise ConfigError("\n".join(fail(at + _clean(p, table), _say(p)) for p in e.errors())) from e
        spec = _spec(parsed, at, fail)
        if spec.key in specs:
            raise ConfigError(fail((*at, "name"), f"a policy {spec.key!r} exists already"))
        specs[spec.key] = spec
    for i, spec in enumerate(specs.values()):
        at = ("policy", i, "reward", "peers")
        for peer in spec.reward.peers:
            if f"{spec.tenant}/{peer}" not in specs:
                raise ConfigError(fail(at, f"no policy of tenant {spec.tenant!r} is called {peer!r}"))
    policies = Policies(specs, detectors)
    for i, spec in enumerate(policies):
        if (columns := peer_columns(spec.peers)) > MAX_COLUMNS:
            message = f"the peers have {columns} levels beyond their baselines, more than {MAX_COLUMNS}: name fewer"
            raise ConfigError(fail(("policy", i, "reward", "peers"), message))
    return policies


def _spec(table: _PolicyTable, at: tuple[str | int, ...], fail: Any) -> PolicySpec:
    place = "knobs"
    try:
        arms = ArmSpace(table.knobs)
        place = "forbidden"
        arms = ArmSpace(table.knobs, table.forbidden)
        place = "baseline"
        baseline = arms.label_of(table.baseline)
        place = "features"
        features = FeatureSpec(features=tuple(table.features))
    except ValidationError as e:
        raise ConfigError(fail((*at, place), "; ".join(_say(p) for p in e.errors()))) from e
    except ValueError as e:
        named = re.match(r"knob '([^']+)'", str(e)) if place == "knobs" else None
        raise ConfigError(fail((*at, place, named[1]) if named else (*at, place), str(e))) from e
    if table.learner.partition(":")[0] not in LEARNERS:
        known = ", ".join(sorted(LEARNERS))
        raise ConfigError(fail((*at, "learner"), f"no learner is called {table.learner!r}; the learners are {known}"))
    reward = table.reward
    if reward.peers and not getattr(learner_class(table.learner), "TAKES_PEERS", False):
        message = (
            f"the learner {table.learner!r} does not know the rule difference; use shared or own, or the learner linear"
        )
        raise ConfigError(fail((*at, "reward", "quality_credit"), message))
    if table.learning.shards > 1 and not getattr(learner_class(table.learner), "TAKES_SHARDS", True):
        message = (
            f"what learners {table.learner!r} have learned apart does not add up; set shards = 1, or the learner linear"
        )
        raise ConfigError(fail((*at, "learning", "shards"), message))
    if not any(vars(reward.weights).values()):
        raise ConfigError(fail((*at, "reward", "weights"), "all weights are 0: nothing could be learned"))
    if reward.penalties and not reward.weights.failures:
        message = "penalties count as failures, and weights.failures is 0: they would change nothing"
        raise ConfigError(fail((*at, "reward", "penalties"), message))
    for weight, scale in (("cost", "cost_micro_usd"), ("latency", "latency_us")):
        if getattr(reward.weights, weight) > 0 and scale not in reward.scales.model_fields_set:
            message = f"weights.{weight} needs scales.{scale}: what one unit of {weight} is"
            raise ConfigError(fail((*at, "reward", "scales"), message))
    if table.guard is not None and table.learning.shards > 1:
        raise ConfigError(
            fail((*at, "guard"), "a policy in shards has no guard: take out this table or learning.shards")
        )
    return PolicySpec(
        table.tenant,
        table.name,
        arms,
        baseline,
        features,
        reward,
        table.exploration,
        table.learner,
        table.learning.shards,
        table.learning,
        _prices(table, at, fail, arms),
        guard=table.guard,
        switch_cost=table.sessions.switch_cost,
    )


def _prices(table: _PolicyTable, at: tuple[str | int, ...], fail: Any, arms: ArmSpace) -> dict[str, dict[str, float]]:
    """The prices, checked; and that nothing is asked of a policy in shards that needs its rewards in one order."""
    for knob, levels in table.prices.items():
        if knob not in arms.knobs:
            raise ConfigError(
                fail((*at, "prices", knob), f"no knob is called so; the knobs are {', '.join(arms.knobs)}")
            )
        known = [level_text(level) for level in arms.knobs[knob]]
        for level in levels:
            if level not in known:
                message = f"knob {knob} has no such level; its levels are {', '.join(known)}"
                raise ConfigError(fail((*at, "prices", knob, level), message))
    if table.learning.shards > 1:
        ordered = {
            ("reward", "ceilings"): bool(table.reward.ceilings.model_dump(exclude_none=True)),
            ("learning", "half_life"): table.learning.half_life is not None,
            ("learning", "drift"): table.learning.drift,
            ("prices",): bool(table.prices),
        }
        for path, wanted in ordered.items():
            if wanted:
                message = "needs the policy's rewards in one order, which shards do not have; set [policy.learning] shards = 1"
                raise ConfigError(fail((*at, *path), message))
    return table.prices


def _in_company(spec: PolicySpec, specs: Mapping[str, PolicySpec], is_peer: bool) -> PolicySpec:
    """A spec that knows its peers."""
    others = [(name, specs[f"{spec.tenant}/{name}"]) for name in spec.reward.peers]
    peers = tuple(Peer(name, other.arms, other.baseline) for name, other in others)
    return spec if (peers, is_peer) == (spec.peers, spec.is_peer) else replace(spec, peers=peers, is_peer=is_peer)


def _clean(problem: Any, table: Any) -> tuple[str | int, ...]:
    """Where a problem is, without the union tags pydantic puts in: only steps that lead somewhere in the document."""
    path: list[str | int] = []
    node = table
    steps = problem["loc"]
    for i, step in enumerate(steps):
        if (isinstance(node, Mapping) and step in node) or (
            isinstance(node, list) and isinstance(step, int) and step < len(node)
        ):
            node = node[step]
        elif i < len(steps) - 1 or problem["type"] != "missing":
            continue
        path.append(step)
    return tuple(path)


def _say(problem: Any) -> str:
    kind, message = problem["type"], problem["msg"]
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "missing":
        return "is required"
    shown = problem.get("input")
    text = f"{message} (got {shown!r})" if isinstance(shown, str | int | float | bool) else message
    if isinstance(shown, float) and not math.isfinite(shown):
        text += "; write a finite number"
    return str(text)


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
