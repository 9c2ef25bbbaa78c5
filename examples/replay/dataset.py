"""Routing data with the outcome of every model on every prompt, so that any choice can be replayed and judged.

Two forms are read:

- the example files inside the installed `paretobandit` package (Apache-2.0): 3,609 prompts of nine public benchmarks,
  three models, judged quality and dollars per call. The package is located through its metadata and never imported.
- CSV files (`.csv` or `.csv.gz`) with the columns ``query_id, domain, [prompt_chars, prompt_wordpieces, prompt],
  q:ARM`` quality in 0..1, ``[cost_usd:ARM]`` dollars, ``[e0, e1, ...]`` a prompt embedding.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steersman.errors import ConfigError

DEFAULT = "paretobandit"
UNIT_MICRO_USD = 10_000
"""Price of one call of the dearest model where a file has no cost columns: one unit, written as one US cent."""

RARE = 100
"""A domain with fewer rows is merged into its family, the part of its name before the first slash."""

_PARETO_FILES = ("pareto_bandit/data/examples/val.jsonl", "pareto_bandit/data/examples/test_holdout.jsonl")


@dataclass(frozen=True)
class Dataset:
    """Prompts with the outcome of every arm.

    Attributes
    ----------
    name
        Short name; the policy is ``replay/<name>``.
    arms
        Model names, K of them.
    contexts
        What is known of each prompt: ``domain``, ``chars``, ``prompt`` and, where the data has one, ``embedding``.
    quality
        Float array (n, K), 0 to 1.
    cost_micro_usd
        Int array (n, K), millionths of a US dollar.
    price
        Utility lost per US dollar: utility = quality - price * dollars.
    """

    name: str
    arms: tuple[str, ...]
    contexts: tuple[Mapping[str, object], ...]
    quality: NDArray[np.float64]
    cost_micro_usd: NDArray[np.int64]
    price: float

    @property
    def utility(self) -> NDArray[np.float64]:
        """Utility of every arm on every prompt, (n, K)."""
        return self.quality - self.price * self.cost_micro_usd / 1e6

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that occur, sorted."""
        return tuple(sorted({str(context["domain"]) for context in self.contexts}))

    @property
    def embedding_dim(self) -> int:
        """Length of the prompts' embeddings, 0 without."""
        first = self.contexts[0].get("embedding")
        return len(first) if isinstance(first, Sequence) else 0

    def shuffled(self, seed: int, limit: int | None = None) -> Dataset:
        """Return the prompts in a seeded random order, at most `limit` of them."""
        order = np.random.default_rng(seed).permutation(len(self.contexts))[:limit]
        contexts = tuple(self.contexts[i] for i in order)
        return Dataset(self.name, self.arms, contexts, self.quality[order], self.cost_micro_usd[order], self.price)


def load(source: str = DEFAULT, price: float | None = None) -> Dataset:
    """Read `source`: the word ``paretobandit`` or the path of a CSV file.

    Parameters
    ----------
    price
        Utility lost per US dollar; by default 5 where the data has dollars, and 10 where calls are priced in units,
        so that one call of the dearest model costs 0.1.

    Raises
    ------
    ConfigError
        When the package or file is missing or does not have the form described above.
    """
    if source == DEFAULT:
        return _load_pareto(5.0 if price is None else price)
    return _load_csv(Path(source), price)


def _load_pareto(price: float) -> Dataset:
    try:
        package = distribution("paretobandit")
    except PackageNotFoundError as error:
        raise ConfigError(
            "the default data is inside the package paretobandit: pip install 'steersman[demo]'"
        ) from error
    rows: list[dict[str, Any]] = []
    for name in _PARETO_FILES:
        path = Path(str(package.locate_file(name)))
        if not path.is_file():
            raise ConfigError(f"{path} is missing: reinstall paretobandit 0.1")
        with path.open(encoding="utf-8") as lines:
            rows.extend(json.loads(line) for line in lines if line.strip())
    arms = tuple(rows[0]["arms"])
    contexts = tuple({"domain": row["source"], "chars": len(row["prompt"]), "prompt": row["prompt"]} for row in rows)
    quality = np.array([[row["arms"][arm]["reward"] for arm in arms] for row in rows], dtype=np.float64)
    dollars = np.array([[row["arms"][arm]["cost"] for arm in arms] for row in rows], dtype=np.float64)
    return Dataset(DEFAULT, arms, _merge_rare(contexts), quality, np.rint(dollars * 1e6).astype(np.int64), price)


def _merge_rare(contexts: Sequence[Mapping[str, object]]) -> tuple[Mapping[str, object], ...]:
    counts = Counter(context["domain"] for context in contexts)
    return tuple(
        {**context, "domain": str(context["domain"]).split("/", 1)[0]} if counts[context["domain"]] < RARE else context
        for context in contexts
    )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as text:
        yield from csv.DictReader(text)


def _number(text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.nan


def _load_csv(path: Path, price: float | None) -> Dataset:
    try:
        rows = list(_rows(path))
    except (OSError, UnicodeDecodeError, csv.Error, EOFError) as error:
        raise ConfigError(f"{path}: cannot read it as CSV: {error}") from error
    columns = list(rows[0]) if rows else []
    arms = tuple(column[2:] for column in columns if column.startswith("q:"))
    if len(arms) < 2:
        raise ConfigError(f"{path}: needs at least two columns q:MODEL with qualities; found {len(arms)}")
    priced = any(f"cost_usd:{arm}" in columns for arm in arms)
    quality = np.array([[_number(row.get(f"q:{arm}")) for arm in arms] for row in rows])
    dollars = np.zeros_like(quality)
    if priced:
        dollars = np.array([[_number(row.get(f"cost_usd:{arm}")) for arm in arms] for row in rows])
    embedded = [column for column in columns if column[:1] == "e" and column[1:].isdigit()]
    whole = np.flatnonzero(np.isfinite(quality).all(axis=1) & np.isfinite(dollars).all(axis=1))
    if not len(whole):
        raise ConfigError(f"{path}: no row has a quality and a cost for every model")
    if not priced:
        dollars[:, int(quality[whole].mean(axis=0).argmax())] = UNIT_MICRO_USD / 1e6
    contexts = tuple(_context(rows[i], embedded) for i in whole)
    name = path.name.removesuffix(".gz").removesuffix(".csv")
    micro = np.rint(dollars[whole] * 1e6).astype(np.int64)
    rate = (5.0 if priced else 10.0) if price is None else price
    return Dataset(name, arms, _merge_rare(contexts), quality[whole], micro, rate)


def _context(row: Mapping[str, str], embedded: Sequence[str]) -> Mapping[str, object]:
    chars = _number(row.get("prompt_chars"))
    prompt = row.get("prompt") or ""
    context: dict[str, object] = {
        "domain": row.get("domain") or "other",
        "chars": int(chars) if math.isfinite(chars) else len(prompt),
        "prompt": prompt,
    }
    if embedded:
        context["embedding"] = [_number(row[column]) for column in embedded]
    return context
