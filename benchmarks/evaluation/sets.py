"""Scenarios by name: real routing data where its file is at hand, the fleet simulator, and what stands for data that is not at hand.

A name is ``set`` or ``set@price``: price is the utility lost per US dollar (per call of the dear model in ``routellm``).
Any file of the form that `examples.replay.dataset` reads is a scenario as well: ``path/to/file.csv.gz@price``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.evaluation.scenario import Scenario
from benchmarks.evaluation.simulated import WORLDS, simulated
from examples.fleet.query import draw_query
from examples.fleet.world import ARMS, COST_SD, DOCUMENT_TOKENS, JUDGE_SD, LATENCY_SD, Upstream, means
from examples.replay.dataset import DEFAULT, UNIT_MICRO_USD, Dataset, load
from examples.replay.policy import context_of, policy_name, policy_toml
from learners.policies_file import load_policies, parse_policies
from learners.spec import Exploration
from steersman.errors import ConfigError

_ROOT = Path(__file__).parents[2]
_FLEET_QUERIES = 3000
_FLEET_SEED = 7

_BFCL = [
    "gpt-4o-mini-2024-07-18",
    "gpt-4o-mini-2024-07-18-FC",
    "gpt-3.5-turbo-0125-FC",
    "claude-3-haiku-20240307",
    "claude-3-5-sonnet-20240620",
    "gpt-4o-2024-08-06-FC",
    "gpt-4-0125-preview",
    "open-mistral-nemo-2407-FC-Auto",
    "open-mixtral-8x22b",
    "claude-3-opus-20240229",
]
_SWE = [
    "claude-4.5-opus-medium",
    "gemini-3-pro-preview",
    "claude-4.5-sonnet",
    "gpt-5-medium-reasoning",
    "gpt-5-mini-medium-reasoning",
    "gpt-5-nano-medium-reasoning",
    "deepseek-v3.2-reasoner",
    "glm-4.6-t=1",
]


@dataclass(frozen=True)
class RealSet:
    """A set of real routing data.

    Attributes
    ----------
    pattern
        Of its file's name; the word ``paretobandit`` is the data inside that package.
    price
        Utility lost per US dollar, or per unit where calls of the dear model cost one unit.
    arms
        Which of the file's arms; all by default.
    unit
        Dollars that the price's unit is worth.
    """

    pattern: str
    price: float
    arms: tuple[str, ...] = ()
    unit: float = 1.0


REAL: Mapping[str, RealSet] = {
    "pareto_k4": RealSet("paretobandit_k4*.csv.gz", 5.0),
    "pareto_k3": RealSet(DEFAULT, 5.0),
    "bfcl": RealSet("bfcl*.csv.gz", 20.0, tuple(_BFCL)),
    "bfcl48": RealSet("bfcl*.csv.gz", 20.0),
    "routerbench": RealSet("routerbench*.csv.gz", 20.0),
    "swe": RealSet("swebench*.csv.gz", 0.5, tuple(_SWE)),
    "routellm": RealSet("routellm*.csv.gz", 0.1, unit=UNIT_MICRO_USD / 1e6),
}
FLEET = ("fleet/synthesis", "fleet/retrieval")
PRICES = ("pareto_k4@1", "pareto_k4@20", "routellm@0.02", "routellm@0.2")
"""The same data where cost weighs almost nothing, and where it weighs much."""
SIMULATED = (*WORLDS, "sim/router@2", "sim/tools@2", "sim/agents@0.1")
"""Simulated after data that is not at hand, at its price and where cost weighs almost nothing."""
DEFAULT_NAMES = (*REAL, *PRICES, *FLEET, *SIMULATED)


def file_of(name: str, folder: Path) -> str | None:
    """What a scenario is read from: a path, ``paretobandit``, ``fleet``, ``simulated``; None when its file is not in the folder.

    Raises
    ------
    ConfigError
        When no scenario has this name.
    """
    base = name.partition("@")[0]
    if base in FLEET:
        return "fleet"
    if base in WORLDS:
        return "simulated"
    if base in REAL:
        pattern = REAL[base].pattern
        if pattern == DEFAULT:
            return DEFAULT
        found = sorted(folder.glob(pattern))
        return str(found[0]) if found else None
    if Path(base).is_file():
        return base
    raise ConfigError(f"no scenario is called {name!r}; there are {', '.join(DEFAULT_NAMES)}, and CSV files by path")


@lru_cache(maxsize=2)
def scenario(name: str, source: str) -> Scenario:
    """Make the scenario `name` from what `file_of` said it is read from; ConfigError when it cannot be read."""
    base, _, price = name.partition("@")
    if base in FLEET:
        return _fleet(base.partition("/")[2])
    try:
        wanted = float(price) if price else None
    except ValueError as error:
        raise ConfigError(f"{name}: {price!r} is no price") from error
    if base in WORLDS:
        return _real(name, simulated(base, wanted))
    described = REAL.get(base)
    if described is None:
        return _real(name, load(source, wanted))
    rate = described.price if wanted is None else wanted
    dataset = load(source, rate / described.unit)
    if described.arms:
        dataset = _only(dataset, described.arms)
    return _real(name, dataset)


def _only(dataset: Dataset, arms: tuple[str, ...]) -> Dataset:
    missing = set(arms) - set(dataset.arms)
    if missing:
        raise ConfigError(f"{dataset.name} lacks the arms {', '.join(sorted(missing))}")
    at = [dataset.arms.index(arm) for arm in arms]
    return replace(dataset, arms=arms, quality=dataset.quality[:, at], cost_micro_usd=dataset.cost_micro_usd[:, at])


def _real(name: str, dataset: Dataset) -> Scenario:
    text = policy_toml(dataset)
    spec = parse_policies(text).get("default", policy_name(dataset))
    if spec is None:
        raise ConfigError(f"the policy of {dataset.name} is not in the text made for it")
    spec = replace(spec, exploration=Exploration())
    x = np.stack([spec.features.encode(context_of(dataset, i)) for i in range(len(dataset.contexts))])
    cost = dataset.cost_micro_usd.astype(np.float64)
    return Scenario(name, spec, x, dataset.quality, cost, np.zeros_like(cost))


def _fleet(role: str) -> Scenario:
    """One agent of the fleet, its upstream agents deciding at random."""
    spec = load_policies(_ROOT / "policies.toml").get("default", f"research/{role}")
    if spec is None:
        raise ConfigError(f"policies.toml has no policy research/{role}")
    spec = replace(spec, exploration=Exploration())
    rng = np.random.default_rng(_FLEET_SEED)
    rows, expected = [], []
    for index in range(_FLEET_QUERIES):
        query = draw_query(_FLEET_SEED, index)
        workers, found = int(rng.choice((1, 2, 4))), int(rng.choice(DOCUMENT_TOKENS))
        upstream = Upstream(workers) if role == "retrieval" else Upstream(workers, found)
        rows.append(
            spec.features.encode({**query.context(), "subagents": workers, "document_tokens": upstream.document_tokens})
        )
        expected.append(means(role, query, upstream))
    shape = (_FLEET_QUERIES, len(ARMS[role]))
    quality = np.array([m.quality for m in expected])
    cost, latency = np.array([m.cost for m in expected]), np.array([m.latency for m in expected])
    drawn = Scenario(
        f"fleet/{role}",
        spec,
        np.stack(rows),
        np.clip(quality + JUDGE_SD * rng.standard_normal(shape), 0.0, 1.0),
        cost * np.exp(rng.normal(-0.5 * COST_SD**2, COST_SD, shape)),
        latency * np.exp(rng.normal(-0.5 * LATENCY_SD**2, LATENCY_SD, shape)),
    )
    return replace(drawn, truth=replace(drawn, quality=quality, cost=cost, latency=latency).utility)
