"""What it costs to turn a context into numbers, most of all its text: on the caller's thread, at every decision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle

import numpy as np

from benchmarks.measure import Figure, percentiles_us
from examples.replay.dataset import load
from steersman import features
from steersman.features import MAX_TEXT, Categorical, Embedding, FeatureSpec, Numeric, Text

PAYLOAD = (
    "the 3,609 prompts of the paretobandit package in turn (half of them have 238 characters or fewer, a tenth more than 525); "
    "text into 32 word columns and 3 marks. Cold: no word has been seen before. Worst: 4,000 characters, all that is looked at of a "
    "text of 10 million, cold"
)

_TEXT = FeatureSpec(features=(Text(name="prompt"),))
_VECTOR = FeatureSpec(features=(Embedding(name="vector", dim=256),))
_PLAIN = FeatureSpec(
    features=(
        *(Numeric(name=f"n{i}") for i in range(8)),
        Categorical(name="domain", values=("law", "news", "science")),
        Categorical(name="tier", values=("standard", "enterprise")),
    )
)


def figures() -> Iterator[Figure]:
    """Text as it comes, cold, and at its worst; a vector; numbers and categories."""
    prompts = [str(context["prompt"]) for context in load().contexts]
    forget = features._word_code.cache_clear
    yield from percentiles_us("Text, prompts", "encode", _through(prompts), calls=len(prompts))
    yield from percentiles_us("Text, prompts, cold", "encode", _through(prompts), calls=len(prompts), between=forget)
    short_words = (f"{i:x} " for i in range(0x100, 0x1000))
    worst = "".join(short_words)[:MAX_TEXT] + "x" * 10_000_000
    yield from percentiles_us("Text, worst", "encode", _through([worst]), calls=200, between=forget)
    vector = {"vector": np.random.default_rng(0).normal(size=256)}
    yield from percentiles_us("Embedding of 256 numbers", "encode", lambda: _VECTOR.encode(vector))
    plain = {**{f"n{i}": 0.1 * i for i in range(8)}, "domain": "news", "tier": "standard"}
    yield from percentiles_us("8 numbers, 2 categories", "encode", lambda: _PLAIN.encode(plain))


def _through(prompts: list[str]) -> Callable[[], object]:
    """A call that encodes the next prompt."""
    contexts = cycle([{"prompt": prompt} for prompt in prompts])
    return lambda: _TEXT.encode(next(contexts))
