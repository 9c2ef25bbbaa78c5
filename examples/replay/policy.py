"""The policy of a dataset, written as a `[[policy]]` table of `policies.toml`."""

from __future__ import annotations

import json

import numpy as np

from examples.replay.dataset import Dataset

COST_SCALE_MICRO_USD = 10_000.0


def policy_name(dataset: Dataset) -> str:
    """Return ``replay/<dataset>``."""
    return f"replay/{dataset.name}"


def baseline_arm(dataset: Dataset) -> str:
    """Return what a service would take without learning: the dearest model."""
    return dataset.arms[int(dataset.cost_micro_usd.mean(axis=0).argmax())]


def context_of(dataset: Dataset, index: int) -> dict[str, object]:
    """Return the context that the policy's features read, for one prompt."""
    context = dataset.contexts[index]
    return {key: context[key] for key in ("domain", "chars", "embedding") if key in context}


def policy_toml(dataset: Dataset) -> str:
    """Return the policy of `dataset` as TOML: one knob, its models; domain, length and embedding as features.

    The length is normalised with the data's own mean and deviation, which an operator knows from logged prompts.
    """
    lengths = np.log1p([float(str(context["chars"])) for context in dataset.contexts])
    weight = dataset.price * COST_SCALE_MICRO_USD / 1e6
    lines = [
        "[[policy]]",
        f"name = {json.dumps(policy_name(dataset))}",
        f"baseline = {{ model = {json.dumps(baseline_arm(dataset))} }}",
        "",
        "[policy.knobs]",
        "model = [",
        *(f"  {json.dumps(arm)}," for arm in dataset.arms),
        "]",
        "",
        "[[policy.features]]",
        'kind = "categorical"',
        'name = "domain"',
        "values = [",
        *(f"  {json.dumps(domain)}," for domain in dataset.domains),
        "]",
        "",
        "[[policy.features]]",
        'kind = "numeric"',
        'name = "chars"',
        f"mean = {float(lengths.mean()):.3f}",
        f"scale = {max(float(lengths.std()), 0.001):.3f}",
        "log = true",
    ]
    if dataset.embedding_dim:
        lines += [
            "",
            "[[policy.features]]",
            'kind = "embedding"',
            'name = "embedding"',
            f"dim = {dataset.embedding_dim}",
        ]
    lines += [
        "",
        "[policy.reward]",
        'metric = "quality"',
        'aggregation = "first"',
        "window_s = 600.0",
        f"weights = {{ quality = 1.0, cost = {weight:.6g} }}",
        f"scales = {{ cost_micro_usd = {COST_SCALE_MICRO_USD} }}",
        "",
        "[policy.exploration]",
        'kind = "maillard"',
        "floor = 0.01",
    ]
    return "\n".join(lines) + "\n"
