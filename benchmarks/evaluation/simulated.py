"""Routing data as public leaderboards describe it, where the data itself is not at hand: right-or-wrong answers of eight to eleven models.

Answers share the difficulty of their request, and what single models add by domain is small, as LLMRouterBench found (arXiv 2601.07206). Rates of
success and prices are about those published with the data that each is named after; which request is which is drawn. They stand for
what recorded sets at hand lack: many arms, answers that are right or wrong, the best arm far ahead (`sim/router`), few requests (`sim/agents`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from examples.replay.dataset import Dataset

_SEED = 3
_EMBEDDING = 25
_SHARED, _OWN = 0.12, 0.04


@dataclass(frozen=True)
class World:
    """A kind of data.

    Attributes
    ----------
    requests : int
    price : float
        Utility lost per US dollar.
    arms : mapping of str to (float, float)
        Model -> rate of success, US dollars a request in the mean.
    domains : tuple of float
        Share of each domain.
    difficulty : tuple of float
        Deviations, in the logistic's unit, of what a domain adds for all models, of what it adds for one, and of a request.
    spread, harder : float
        Deviation of the logarithm of a cost, and what a unit of difficulty adds to it.
    """

    requests: int
    price: float
    arms: Mapping[str, tuple[float, float]]
    domains: tuple[float, ...]
    difficulty: tuple[float, float, float]
    spread: float
    harder: float = 0.0


WORLDS: Mapping[str, World] = {
    # RouterBench: eleven models, one far ahead at this price, three benchmarks.
    "sim/router": World(
        3150,
        20.0,
        {
            "gpt-4": (0.83, 0.0026), "gpt-3.5": (0.70, 0.0002), "claude-2": (0.62, 0.0025), "claude-1": (0.67, 0.0024),
            "instant": (0.65, 0.0003), "mixtral": (0.66, 0.00012), "llama-70b": (0.60, 0.0002), "yi-34b": (0.72, 0.00017),
            "code-34b": (0.48, 0.00017), "wizard-13b": (0.55, 0.00007), "mistral-7b": (0.52, 0.00004),
        },
        (0.4, 0.35, 0.25),
        (0.7, 0.8, 1.5),
        0.4,
    ),
    # BFCL: tool calls by ten models, fourteen categories.
    "sim/tools": World(
        1700,
        20.0,
        {
            "4o-mini": (0.88, 0.0003), "4o-mini-fc": (0.86, 0.0003), "gpt-3.5-fc": (0.82, 0.0005), "haiku": (0.80, 0.0012),
            "sonnet": (0.86, 0.004), "4o-fc": (0.86, 0.003), "gpt-4-fc": (0.87, 0.011), "nemo": (0.78, 0.0003),
            "mixtral": (0.81, 0.0012), "opus": (0.84, 0.017),
        },
        (1 / 14,) * 14,
        (1.2, 0.3, 2.2),
        0.3,
    ),
    # SWE-bench: eight agents, 500 tasks, most of them of one repository, costs with a long tail.
    "sim/agents": World(
        500,
        0.5,
        {
            "opus": (0.744, 0.72), "gemini": (0.742, 0.46), "sonnet": (0.706, 0.56), "gpt-5": (0.65, 0.28),
            "gpt-5-mini": (0.598, 0.04), "gpt-5-nano": (0.348, 0.04), "deepseek": (0.60, 0.03), "glm": (0.554, 0.30),
        },
        (0.46, *(0.54 / 11,) * 11),
        (0.6, 0.1, 2.6),
        0.7,
        0.25,
    ),
}  # fmt: skip


def simulated(name: str, price: float | None = None) -> Dataset:
    """Draw a world's data; the same for every call.

    Parameters
    ----------
    name
        Of `WORLDS`.
    price
        Utility lost per US dollar; the world's own by default.
    """
    world = WORLDS[name]
    rng = np.random.default_rng(_SEED)
    n, k = world.requests, len(world.arms)
    common, own, request = world.difficulty
    domain = rng.choice(len(world.domains), n, p=world.domains)
    by_domain = rng.normal(0.0, common, (len(world.domains), 1)) + rng.normal(0.0, own, (len(world.domains), k))
    embedding = rng.standard_normal((n, _EMBEDDING))
    shared = embedding @ (rng.standard_normal((_EMBEDDING, 1)) * _SHARED)
    ease = request * rng.standard_normal((n, 1))
    able = by_domain[domain] + shared + embedding @ (rng.standard_normal((_EMBEDDING, k)) * _OWN) + ease
    able += 0.7 * rng.logistic(size=(n, k))
    rates, dollars = np.array(list(world.arms.values())).T
    quality = (able > [np.quantile(able[:, arm], 1.0 - rates[arm]) for arm in range(k)]).astype(np.float64)
    logs = rng.normal(0.0, world.spread, (n, k)) - world.harder * ease
    cost = dollars * np.exp(logs - 0.5 * (world.spread**2 + (world.harder * request) ** 2))
    contexts = tuple(
        {"domain": f"d{domain[i]}", "chars": int(np.exp(rng.normal(6.0, 0.5))), "embedding": embedding[i].tolist()}
        for i in range(n)
    )
    micro = np.rint(1e6 * cost).astype(np.int64)
    return Dataset(name, tuple(world.arms), contexts, quality, micro, world.price if price is None else price)
