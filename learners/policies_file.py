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
                                           # latency of all but 5 or 1 % of the decisions: latency_us_p95, latency_us_p99; tool_calls.
                                           # steady = true: means are aims, decisions stay near them one by one (learners.pacing)
    tenant_feature = "tenant"              # the categorical feature that says whose request it is, for:
    tenant_ceilings = { acme = { tool_calls = 3.0 } }   # default none; ceilings of single tenants, of the values of that feature,
                                           #   on top of the policy's own (learners.tenant_pacing)
    trusted = ["judge"]                    # default []; sources of feedback whose number of judgements is not bounded
    quarantined = ["user-7"]               # default []; sources that are not believed, nor ever were: the policy is learned again
                                           #   without them (steersman quarantine; learners.quarantine)
    range = [0.0, 1.0]                     # default none; a quality outside is not believed

    [policy.exploration]
    kind = "maillard"                      # maillard | thompson | igw | softmax | ucb | greedy; left out: the learner's own
    scale = 0.2                            # how widely, in the rule's unit; left out: see learners.exploring
    floor = 0.02                           # probability shared evenly by all eligible arms, in 0..1; left out: 0.02 at first,
                                           # falling as 1 / rewards to 0.001; with greedy 0.05

    [policy.learning]
    shards = 1                             # learners that share the policy's rewards, 1..64; another number begins an epoch
    half_life = 20000.0                    # default none; rewards after which what was learned counts half
    drift = true                           # default true, with shards false; whether a change of the world is looked for (learners.drift)
    robust = true                          # whether the influence of single judgements, sources and contexts is bounded
    trim = 0.05                            # default none; share of the judgements, those furthest from what is expected, that is
                                           #   never believed. For scores, not for 0 and 1 (learners.influence)

    [policy.prices.model]                  # default none; what levels of a knob cost, in any one unit: when it changes, what was
    small = 0.15                           # learned of costs changes in proportion, at once
    large = 3.0

    [policy.prior]                         # default none; what is expected of levels before the first reward (learners.prior_spec): from an
    events = 20.0                          # evaluation set, another policy, a price list. A declared quality is worth so many rewards of
    [policy.prior.quality.model]           # its level; a cost or a latency is believed until the first rewards tell. Only
    small = 0.71                           # differences between levels matter. Not with linucb, ucb1 and regressors of River
    large = 0.86
    [policy.prior.cost_micro_usd.model]
    small = 300.0
    large = 5200.0
    [policy.prior.latency_us.model]
    small = 800000.0
    large = 2500000.0

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

and once for the file:

.. code-block:: toml

    [detectors]                            # defaults for everything: see learners.detector_settings

Ceilings (of tenants too), half_life, drift, prices and quarantined need the rewards in one order, so they cannot be had with shards.

utility = weights.quality * quality - weights.cost * cost_micro_usd / scales.cost_micro_usd
- weights.latency * latency_us / scales.latency_us - weights.failures * failures

`credit` says what a decision is charged with, `quality_credit` what it is praised for when several decisions made one result:

- ``own``: feedback aimed at the decision, its span or the whole trace, in full. For steps that are judged one by one.
- ``shared``: feedback on the whole trace only, split by `share` between the decisions of the trace that share its metric; the
  shares add up to it. A decision then sees only its share of what it changes: with n even shares, ``weights.quality = n`` weighs
  a change as the trace does.
- ``difference``: in full as ``own``, less what the learner's model says that the peers' choices did in this context: a decision is
  compared with its baseline arm, the others as they were (`learners.peers`). With ``credit = "trace"`` for cost and latency too, which
  is best where what one agent decides makes others dearer. Says the most where only whole traces are judged.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from steersman.arms import ArmSpace
from steersman.errors import ConfigError
from steersman.features import FeatureSpec

from .catalog import LEARNERS
from .detector_settings import DetectorSettings
from .peers import MAX_LEVELS, peer_levels
from .policies import Policies
from .policy_table import PolicyTable, check_ceilings, checked_prices, checked_prior
from .registry import learner_class
from .spec import (
    PolicySpec,
)
from .toml_lines import key_lines, line_of


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
            parsed = PolicyTable.model_validate(table)
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
        if (levels := peer_levels(spec.peers)) > MAX_LEVELS:
            message = f"the peers have {levels} levels beyond their baselines, more than {MAX_LEVELS}: name fewer"
            raise ConfigError(fail(("policy", i, "reward", "peers"), message))
    return policies


def _spec(table: PolicyTable, at: tuple[str | int, ...], fail: Any) -> PolicySpec:
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
    check_ceilings(table, at, fail)
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
        checked_prices(table, at, fail, arms),
        checked_prior(table, at, fail, arms),
        guard=table.guard,
        switch_cost=table.sessions.switch_cost,
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
