"""The questions that reach the research assistant: a seeded, pure stream of queries."""

from __future__ import annotations

import bisect
import math
from dataclasses import asdict, dataclass

import numpy as np

DOMAINS: tuple[str, ...] = ("science", "finance", "law", "health", "news")
KINDS: tuple[str, ...] = ("lookup", "explain", "compare", "survey")
KIND_EDGES: tuple[float, ...] = (0.2, 0.45, 0.7)
TIERS: tuple[str, ...] = ("standard", "enterprise")

# Half of the traffic is simple. The class is hidden; complexity is drawn from its Beta distribution.
CLASS_SHARES: tuple[float, ...] = (0.56, 0.29, 0.15)
CLASS_BETAS: tuple[tuple[float, float], ...] = ((2.0, 10.0), (8.0, 8.0), (10.0, 2.0))
DOMAIN_SHARES: tuple[float, ...] = (0.30, 0.20, 0.15, 0.15, 0.20)
ENTERPRISE_SHARE = 0.3
ESTIMATE_SD = 0.07


@dataclass(frozen=True, slots=True)
class Query:
    """One question.

    Attributes
    ----------
    index
        Position in the stream, from 0; unit: count.
    complexity
        True difficulty, 0 to 1. Hidden from the agents; only the world uses it.
    estimate
        What a cheap classifier says the complexity is: the truth plus Gaussian noise, 0 to 1.
    kind
        What the question is taken to ask for: the range of complexity it falls into (`KIND_EDGES`), seen with noise
        of its own.
    domain, tier, words
        Subject, the tenant's tier, length; unit: name, name, words.
    """

    index: int
    complexity: float
    estimate: float
    kind: str
    domain: str
    tier: str
    words: int

    def context(self) -> dict[str, object]:
        """Return what an agent may know when it decides, named as in `policies.toml`."""
        return {
            "complexity": self.estimate,
            "words": self.words,
            "kind": self.kind,
            "domain": self.domain,
            "tier": self.tier,
        }

    def to_message(self) -> dict[str, object]:
        """Return the query as JSON values."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, object]) -> Query:
        """Return the query that `to_message` made `message` from."""
        return cls(**message)  # type: ignore[arg-type]


def draw_query(seed: int, index: int) -> Query:
    """Return query `index` of the stream that `seed` names: the same arguments give the same query."""
    rng = np.random.default_rng((seed, index, 0))
    hidden = int(rng.choice(3, p=CLASS_SHARES))
    complexity = float(rng.beta(*CLASS_BETAS[hidden]))
    estimate = min(1.0, max(0.0, complexity + ESTIMATE_SD * float(rng.standard_normal())))
    kind = KINDS[bisect.bisect(KIND_EDGES, complexity + ESTIMATE_SD * float(rng.standard_normal()))]
    words = 4 + round(math.exp(1.8 + 1.5 * complexity + 0.3 * float(rng.standard_normal())))
    return Query(
        index=index,
        complexity=complexity,
        estimate=estimate,
        kind=kind,
        domain=DOMAINS[int(rng.choice(len(DOMAINS), p=DOMAIN_SHARES))],
        tier=TIERS[int(rng.random() < ENTERPRISE_SHARE)],
        words=words,
    )
