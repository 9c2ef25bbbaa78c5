"""Single decision points cut out of the fleet's world, for comparing learners: who writes the answer, and how.

The arms, prices, speeds and noise are those of the synthesis step (`examples.fleet.world`). What differs is how the
agent's signals tell the need of a question:

``curved``
    The need rises where ambiguity and depth are both high or both low, and falls where only one is: a product, of which
    neither signal alone, nor any weighted sum of the two, tells much.
``linear``
    The complexity itself is known, and the quality of every arm is linear in it: there is nothing beyond a linear model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from examples.fleet.query import Query
from examples.fleet.world import (
    ARMS,
    BASELINE,
    COST_SCALE_MICRO_USD,
    FORBIDDEN,
    KNOBS,
    LATENCY_SCALE_US,
    SHARE,
    Floats,
    Means,
    Upstream,
    means,
)

ROLE = "synthesis"
_DOCUMENT_TOKENS = (2_400, 3_200, 7_200, 9_600, 19_200)
_CAPACITY = {"small": 0.35, "medium": 0.65, "large": 0.95}


@dataclass(frozen=True, slots=True)
class Request:
    """One request: what the agent knows, and the expected outcome of every arm."""

    context: Mapping[str, object]
    means: Means

    @property
    def utility(self) -> Floats:
        """What each arm adds to the interaction's utility, shape (K,)."""
        m = self.means
        return SHARE[ROLE] * m.quality - m.cost / COST_SCALE_MICRO_USD - m.latency / LATENCY_SCALE_US


def curved(rng: np.random.Generator) -> Request:
    """Draw a request whose need is a product of two signals."""
    ambiguity, depth = rng.uniform(-1.7, 1.7, 2).tolist()
    documents = int(rng.choice(_DOCUMENT_TOKENS))
    complexity = float(np.clip(0.45 + 0.15 * ambiguity * depth + 0.08 * depth, 0.0, 1.0))
    context = {"ambiguity": ambiguity, "depth": depth, "document_tokens": documents}
    return Request(context, means(ROLE, _query(complexity), Upstream(1, documents)))


def linear(rng: np.random.Generator) -> Request:
    """Draw a request of which everything is linear in the complexity, which is known."""
    complexity = float(rng.uniform())
    expected = means(ROLE, _query(complexity), Upstream(1, 7_200))
    ability = np.array([_CAPACITY[str(arm["model"])] for arm in ARMS[ROLE]])
    quality = 0.95 - 0.9 * complexity * (1.0 - ability)
    return Request({"complexity": complexity}, replace(expected, quality=quality))


def _query(complexity: float) -> Query:
    return Query(0, complexity, complexity, "explain", "science", "standard", 12)


SCENARIOS: dict[str, Callable[[np.random.Generator], Request]] = {"curved": curved, "linear": linear}
"""By name, what draws a request."""

_FEATURES = {
    "curved": """
[[policy.features]]
kind = "numeric"
name = "ambiguity"

[[policy.features]]
kind = "numeric"
name = "depth"

[[policy.features]]
kind = "numeric"
name = "document_tokens"
mean = 8.6
scale = 0.9
log = true
""",
    "linear": """
[[policy.features]]
kind = "numeric"
name = "complexity"
mean = 0.5
scale = 0.29
""",
}


def policy_toml(scenario: str, learner: str = "linear") -> str:
    """The policy of a scenario as a ``[[policy]]`` table; its weights are those of ``research/synthesis``."""
    assert ROLE not in FORBIDDEN  # noqa: S101 - else the table would have to say so
    knobs = "\n".join(f"{knob} = {list(levels)!r}".replace("'", '"') for knob, levels in KNOBS[ROLE].items())
    baseline = ", ".join(f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v}" for k, v in BASELINE[ROLE].items())
    return f"""[[policy]]
name = "scenario/{scenario}"
learner = "{learner}"
baseline = {{ {baseline} }}

[policy.knobs]
{knobs}
{_FEATURES[scenario]}
[policy.reward]
metric = "faithfulness"
window_s = 120.0
weights = {{ quality = 0.4, cost = 0.02, latency = 0.05625 }}
scales = {{ cost_micro_usd = 40000.0, latency_us = 4500000.0 }}
"""
