"""Policies as people write them: ``policies.toml``, checked, with errors that name file, line and key.

One ``[[policy]]`` per decision point. Every key, with its default (no default: required):

.. code-block:: toml

    [[policy]]
    name = "research/retrieval"            # free of whitespace and '#'; "tenant/name" is its key everywhere
    tenant = "default"
    learner = "linear"                     # a name of learners.catalog
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
    kind = "text"                          #   text: words and word pairs hashed into dim columns
    name = "prompt"
    dim = 32

    [policy.reward]
    metric = "quality"                     # the feedback metric that is the quality
    aggregation = "first"                  # first | last | max | mean of its feedback events
    default = 0.0                          # quality when none came in the window; left out: such rewards teach no quality
    window_s = 3600.0                      # seconds from the decision within which feedback counts
    settle_ms = 200                        # milliseconds to wait for stragglers once end and feedback have come
    credit = "subtree"                     # subtree (the enclosing span's) | trace: what cost, latency, failures add up over
    clip = 100.0                           # cost and latency beyond so many scales teach no more than that
    weights = { quality = 1.0, cost = 0.0, latency = 0.0, failures = 0.0 }    # each >= 0
    scales = { cost_micro_usd = 10000.0, latency_us = 10000000.0 }            # required where the weight is not 0
    ceilings = { cost_micro_usd = 5000.0 } # default none; upper limits of a mean: cost_micro_usd, latency_us, failures

    [policy.exploration]
    kind = "maillard"                      # maillard | greedy (the floor alone explores)
    scale = 0.2                            # left out: 0.2 (10 / arms)^0.35, see learners.policy_learner
    floor = 0.02                           # probability shared evenly by all eligible arms, in 0..1

    [policy.learning]
    shards = 1                             # learners that share the policy's rewards, 1..64; another number begins an epoch

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
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steersman.arms import ArmSpace
from steersman.errors import ConfigError
from steersman.features import FeatureSpec, Transform

from .catalog import LEARNERS
from .guard_spec import GuardSpec
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
    """Upper limits of means; None is no limit."""

    cost_micro_usd: _Positive | None = None
    latency_us: _Positive | None = None
    failures: _Positive | None = None


class RewardSpec(_Table):
    """What a decision is worth, and when that is settled. Units: window_s seconds, settle_ms milliseconds."""

    metric: Annotated[str, Field(pattern=_NAME, max_length=200)] = "quality"
    aggregation: Literal["first", "last", "max", "mean"] = "first"
    default: Annotated[float, Field(allow_inf_nan=False)] | None = None
    window_s: Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False)] = 3600.0
    settle_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 200
    credit: Literal["subtree", "trace"] = "subtree"
    clip: _Positive = 100.0
    weights: Weights = Weights()
    scales: Scales = Scales()
    ceilings: Ceilings = Ceilings()

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
        keys = ("metric", "aggregation", "default", "window_s", "credit", "clip", "scales")
        return _hash({key: self.model_dump()[key] for key in keys})


class Exploration(_Table):
    """How to explore; `scale` None is the default for the number of arms."""

    kind: Literal["maillard", "greedy"] = "maillard"
    scale: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    floor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.02


class Learning(_Table):
    """How many learners share the rewards of the policy: shard k of N has the source partitions that are k modulo N."""

    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS, strict=True)] = 1


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
        """16 hex digits of what defines the reward components."""
        return self.reward.hash

    @cached_property
    def lineage(self) -> str:
        """16 hex digits of all that an epoch rests on: components, features, arms, learner and number of shards."""
        return lineage_of(self.reward_hash, self.features, self.arms.to_record(), self.learned_by)


def lineage_of(reward_hash: str, features: FeatureSpec, arms: Mapping[str, Any], learner: str) -> str:
    """16 hex digits of what an epoch rests on; `arms` and `learner` are the record forms, as in a policy snapshot."""
    return _hash([reward_hash, features.model_dump(), arms, learner])


class Policies:
    """The policies of a file, by tenant and name; iterates over them in file order."""

    def __init__(self, specs: Mapping[str, PolicySpec] | None = None) -> None:
        self._specs = dict(specs or {})

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
        fail((key,), "unknown key; a policies file holds [[policy]] tables") for key in document if key != "policy"
    ]
    if unknown:
        raise ConfigError("\n".join(unknown))
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
    return Policies(specs)


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
    if table.learner not in LEARNERS:
        known = ", ".join(sorted(LEARNERS))
        raise ConfigError(fail((*at, "learner"), f"no learner is called {table.learner!r}; the learners are {known}"))
    reward = table.reward
    if not any(vars(reward.weights).values()):
        raise ConfigError(fail((*at, "reward", "weights"), "all weights are 0: nothing could be learned"))
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
        table.guard,
        table.sessions.switch_cost,
    )


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
