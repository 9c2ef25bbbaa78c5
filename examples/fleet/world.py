"""The world model: what each agent's setting does to quality, cost and latency of one query.

Nothing here is measured; it is a stated, pure and seeded stand-in for models and tools, so that the best possible
policy can be computed and the distance to it reported.

Quality
    A step has a *need* that grows with the query's complexity z, and a setting has a *capacity*, the sum of what its
    levels give. Falling short costs quality steeply, overshooting a little (noise documents, overthinking)::

        quality = top - steep * max(0, need - capacity) - waste * max(0, capacity - need)

    The answer's quality is the weighted mean of the four steps' qualities (`SHARE`).
Cost and latency
    Tokens, prices, decoding speeds and search times, spelled out in `_plan`, `_retrieve`, `_synthesize`, `_cite`.
    `TIME` scales all latencies so that the static baseline averages 12 s an interaction.
Noise
    Latency and cost are multiplied by log-normal noise of mean one; a call fails with probability `FAILURE` and is
    retried after `RETRY_US`; every judged quality has Gaussian noise (`JUDGE_SD`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.fleet.query import Query

Level = str | int | float | bool
Floats = NDArray[np.float64]

ROLES: tuple[str, ...] = ("orchestrator", "retrieval", "synthesis", "citation")

KNOBS: dict[str, dict[str, tuple[Level, ...]]] = {
    "orchestrator": {"plan": ("none", "short", "full"), "subagents": (1, 2, 4)},
    "retrieval": {"top_k": (4, 12, 32), "passes": (1, 2, 3), "rerank": (False, True)},
    "synthesis": {
        "model": ("small", "medium", "large"),
        "effort": ("low", "medium", "high"),
        "context_tokens": (4000, 16000, 48000),
    },
    "citation": {"verify": ("off", "sample", "all"), "model": ("small", "large")},
}
FORBIDDEN: dict[str, tuple[dict[str, Level], ...]] = {"citation": ({"verify": "off", "model": "large"},)}
BASELINE: dict[str, dict[str, Level]] = {
    "orchestrator": {"plan": "full", "subagents": 1},
    "retrieval": {"top_k": 12, "passes": 2, "rerank": False},
    "synthesis": {"model": "large", "effort": "medium", "context_tokens": 48000},
    "citation": {"verify": "all", "model": "large"},
}
SHARE: dict[str, float] = {"orchestrator": 0.15, "retrieval": 0.30, "synthesis": 0.40, "citation": 0.15}
METRIC: dict[str, str] = {
    "orchestrator": "quality",
    "retrieval": "relevance",
    "synthesis": "faithfulness",
    "citation": "citation",
}

# What one unit of answer quality is worth: the objective that regret is measured in.
COST_SCALE_MICRO_USD = 2_000_000.0
LATENCY_SCALE_US = 80_000_000.0

TIME = 1.113
LATENCY_SD = 0.20
COST_SD = 0.10
JUDGE_SD = 0.05
FAILURE = 0.015
RETRY_US = 800_000

# Micro-USD per input token, per output token; microseconds per input token, per output token.
MODELS: dict[str, tuple[float, float, float, float]] = {
    "small": (0.15, 0.6, 12.0, 2_500.0),
    "medium": (0.8, 4.0, 25.0, 4_500.0),
    "large": (3.0, 15.0, 50.0, 7_000.0),
}
CONTEXT_LIMIT = 64_000


@dataclass(frozen=True, slots=True)
class Upstream:
    """What earlier agents of the same interaction decided: search workers, and tokens of documents found."""

    subagents: int = 1
    document_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Means:
    """Expected outcome of every arm of one role, arrays of shape (K,): quality 0..1, micro-USD, microseconds, tokens."""

    quality: Floats
    cost: Floats
    latency: Floats
    input_tokens: Floats
    output_tokens: Floats


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step of one interaction did: latency in microseconds with the retry, cost in micro-USD, tokens."""

    quality: float
    cost_micro_usd: int
    latency_us: int
    input_tokens: int
    output_tokens: int
    failed: bool


def _arms(role: str) -> tuple[dict[str, Level], ...]:
    knobs = KNOBS[role]
    every = (dict(zip(knobs, levels, strict=True)) for levels in itertools.product(*knobs.values()))
    ruled_out = FORBIDDEN.get(role, ())
    return tuple(arm for arm in every if not any(bad.items() <= arm.items() for bad in ruled_out))


ARMS: dict[str, tuple[dict[str, Level], ...]] = {role: _arms(role) for role in ROLES}
_POSITION: dict[str, dict[tuple[Level, ...], int]] = {
    role: {tuple(arm.values()): i for i, arm in enumerate(arms)} for role, arms in ARMS.items()
}


def arm_index(role: str, arm: Mapping[str, Level]) -> int:
    """Return the position of `arm` among the role's arms; KeyError when it is none of them."""
    return _POSITION[role][tuple(arm[knob] for knob in KNOBS[role])]


def _column(role: str, knob: str, table: Mapping[Level, float]) -> Floats:
    return np.array([table[arm[knob]] for arm in ARMS[role]])


def _price(role: str, part: int) -> Floats:
    return _column(role, "model", {name: prices[part] for name, prices in MODELS.items()})


_PLAN_CAPACITY = _column("orchestrator", "plan", {"none": 0.20, "short": 0.55, "full": 0.90})
_PLAN_TOKENS = _column("orchestrator", "plan", {"none": 0.0, "short": 120.0, "full": 480.0})
_SUBAGENTS = _column("orchestrator", "subagents", {1: 1.0, 2: 2.0, 4: 4.0})

_TOP_K = _column("retrieval", "top_k", {4: 4.0, 12: 12.0, 32: 32.0})
_PASSES = _column("retrieval", "passes", {1: 1.0, 2: 2.0, 3: 3.0})
_RERANK = _column("retrieval", "rerank", {False: 0.0, True: 1.0})
_SEARCH_CAPACITY = (
    _column("retrieval", "top_k", {4: 0.15, 12: 0.27, 32: 0.40})
    + _column("retrieval", "passes", {1: 0.10, 2: 0.26, 3: 0.38})
    + 0.12 * _RERANK
)
DOCUMENT_TOKENS = (_TOP_K * (400.0 + 200.0 * _PASSES)).astype(np.int64)

_WRITE_CAPACITY = (
    _column("synthesis", "model", {"small": 0.20, "medium": 0.42, "large": 0.62})
    + _column("synthesis", "effort", {"low": 0.0, "medium": 0.09, "high": 0.22})
    + _column("synthesis", "context_tokens", {4000: 0.0, 16000: 0.06, 48000: 0.08})
)
_THOUGHT = _column("synthesis", "effort", {"low": 60.0, "medium": 420.0, "high": 950.0})
_WINDOW = _column("synthesis", "context_tokens", {4000: 4_000.0, 16000: 16_000.0, 48000: 48_000.0})
_WRITE_PRICES = tuple(_price("synthesis", part) for part in range(4))

_CHECK_CAPACITY = _column("citation", "verify", {"off": 0.15, "sample": 0.50, "all": 0.82}) + _column(
    "citation", "model", {"small": 0.0, "large": 0.14}
) * _column("citation", "verify", {"off": 0.0, "sample": 1.0, "all": 1.0})
_CHECKED = _column("citation", "verify", {"off": 0.0, "sample": 1_200.0, "all": 5_000.0})
_CHECK_PRICES = tuple(_price("citation", part) for part in range(4))
_RISK = {"science": 0.10, "finance": 0.20, "law": 0.35, "health": 0.35, "news": 0.0}


def _quality(need: float, capacity: Floats, top: float, steep: float, waste: float) -> Floats:
    return np.clip(top - steep * np.maximum(0.0, need - capacity) - waste * np.maximum(0.0, capacity - need), 0.0, 1.0)


def _plan(query: Query, _upstream: Upstream) -> Means:
    """Planning by the medium model; each further search worker costs 900 micro-USD and 60 ms of coordination."""
    z = query.complexity
    tokens_in = np.where(_PLAN_TOKENS > 0, 600.0 + 10.0 * query.words, 0.0)
    tokens_out = _PLAN_TOKENS * (0.7 + 0.6 * z)
    price_in, price_out, read_us, write_us = MODELS["medium"]
    return Means(
        quality=_quality(0.10 + 0.85 * z, _PLAN_CAPACITY, 0.93, 0.8, 0.06),
        cost=tokens_in * price_in + tokens_out * price_out + 900.0 * (_SUBAGENTS - 1.0),
        latency=30_000.0 + tokens_in * read_us + tokens_out * write_us + 60_000.0 * (_SUBAGENTS - 1.0),
        input_tokens=tokens_in,
        output_tokens=tokens_out,
    )


def _retrieve(query: Query, upstream: Upstream) -> Means:
    """Passes over the index, shared out among the search workers, then an optional reranker over what was found."""
    z, enterprise = query.complexity, query.tier == "enterprise"
    search = _PASSES * (450_000.0 + 25_000.0 * _TOP_K) / upstream.subagents**0.5
    return Means(
        quality=_quality(0.15 + 0.75 * z + 0.06 * enterprise, _SEARCH_CAPACITY, 0.94, 1.5, 0.14),
        cost=_PASSES * (400.0 + 25.0 * _TOP_K) + _RERANK * (200.0 + 60.0 * _TOP_K),
        latency=search * (1.25 if enterprise else 1.0) + _RERANK * (150_000.0 + 18_000.0 * _TOP_K),
        input_tokens=_PASSES * 200.0 + _RERANK * 150.0 * _TOP_K,
        output_tokens=np.zeros_like(_TOP_K),
    )


def _synthesize(query: Query, upstream: Upstream) -> Means:
    """One model call: reads as much of the documents as the window holds, thinks, writes the answer."""
    z = query.complexity
    price_in, price_out, read_us, write_us = _WRITE_PRICES
    tokens_in = np.minimum(_WINDOW, 1_200.0 + upstream.document_tokens)
    tokens_out = 200.0 + 250.0 * z + _THOUGHT * (0.6 + 0.8 * z)
    return Means(
        quality=_quality(0.15 + 0.80 * z, _WRITE_CAPACITY, 0.95, 1.2, 0.12),
        cost=tokens_in * price_in + tokens_out * price_out,
        latency=100_000.0 + tokens_in * read_us + tokens_out * write_us,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
    )


def _cite(query: Query, _upstream: Upstream) -> Means:
    """Checking claims against their sources; law and health need it most."""
    z = query.complexity
    price_in, price_out, read_us, write_us = _CHECK_PRICES
    tokens_in = _CHECKED * (0.6 + 0.8 * z)
    tokens_out = 0.05 * tokens_in
    return Means(
        quality=_quality(0.10 + 0.50 * z + _RISK[query.domain], _CHECK_CAPACITY, 0.95, 0.8, 0.06),
        cost=tokens_in * price_in + tokens_out * price_out,
        latency=20_000.0 + tokens_in * read_us + tokens_out * write_us,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
    )


_STEPS: dict[str, Callable[[Query, Upstream], Means]] = {
    "orchestrator": _plan,
    "retrieval": _retrieve,
    "synthesis": _synthesize,
    "citation": _cite,
}


def means(role: str, query: Query, upstream: Upstream = Upstream()) -> Means:
    """Return the expected outcome of every arm of `role` for `query`, retries included."""
    raw = _STEPS[role](query, upstream)
    retry_us = FAILURE * RETRY_US * (raw.input_tokens > 0)
    return Means(raw.quality, raw.cost, raw.latency * TIME + retry_us, raw.input_tokens, raw.output_tokens)


def perform(role: str, query: Query, arm: Mapping[str, Level], upstream: Upstream, rng: np.random.Generator) -> Outcome:
    """Draw what the step does under `arm`; `quality` is the true one, before the judge's noise."""
    i = arm_index(role, arm)
    expected = _STEPS[role](query, upstream)
    slow, dear = np.exp(rng.normal(-0.5 * np.square((LATENCY_SD, COST_SD)), (LATENCY_SD, COST_SD)))
    failed = bool(rng.random() < FAILURE) and float(expected.input_tokens[i]) > 0
    return Outcome(
        quality=float(expected.quality[i]),
        cost_micro_usd=round(float(expected.cost[i] * dear)),
        latency_us=round(float(expected.latency[i] * TIME * slow)) + failed * RETRY_US,
        input_tokens=round(float(expected.input_tokens[i])),
        output_tokens=round(float(expected.output_tokens[i])),
        failed=failed,
    )


def judged(quality: float, rng: np.random.Generator) -> float:
    """Return `quality` as a judge scores it: with noise, within 0 and 1."""
    return float(min(1.0, max(0.0, quality + JUDGE_SD * rng.standard_normal())))
