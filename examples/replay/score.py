"""What a replay came to: beside random, the best fixed model and the oracle, on the same prompts in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.replay.dataset import Dataset


def score(dataset: Dataset, chosen: NDArray[np.int64]) -> dict[str, Any]:
    """Compare the arms `chosen` for the first prompts of `dataset` with what could have been chosen.

    Parameters
    ----------
    chosen
        Indices of arms, shape (m,), m >= 1; prompt i got arm chosen[i].

    Returns
    -------
    dict
        Mean utilities: ``mean_reward``, ``best_fixed`` (the one model best over all m prompts), ``oracle``, ``random``;
        the same four with ``_last_quarter`` (the fixed model still being the one best overall; ``last_quarter`` is the
        mean reward's); ``quality`` and ``cost_usd`` per prompt with the best fixed model's, and the share of each model.
    """
    m = len(chosen)
    if not m:
        raise ValueError("nothing was replayed")
    rows, utility = np.arange(m), dataset.utility[:m]
    fixed = int(utility.mean(axis=0).argmax())
    got, last = utility[rows, chosen], slice(m * 3 // 4, m)
    dollars = dataset.cost_micro_usd[:m] / 1e6
    return {
        "dataset": dataset.name,
        "prompts": m,
        "price_per_usd": dataset.price,
        "mean_reward": float(got.mean()),
        "best_fixed": float(utility[:, fixed].mean()),
        "oracle": float(utility.max(axis=1).mean()),
        "random": float(utility.mean()),
        "last_quarter": float(got[last].mean()),
        "best_fixed_last_quarter": float(utility[last, fixed].mean()),
        "oracle_last_quarter": float(utility[last].max(axis=1).mean()),
        "random_last_quarter": float(utility[last].mean()),
        "best_fixed_model": dataset.arms[fixed],
        "quality": float(dataset.quality[rows, chosen].mean()),
        "best_fixed_quality": float(dataset.quality[:m, fixed].mean()),
        "cost_usd": float(dollars[rows, chosen].mean()),
        "best_fixed_cost_usd": float(dollars[:, fixed].mean()),
        "shares": {arm: float((chosen == k).mean()) for k, arm in enumerate(dataset.arms)},
    }
