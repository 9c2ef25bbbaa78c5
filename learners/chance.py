"""The draw behind a decision, computed again from the snapshot that decided. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steersman.held import Held
from steersman.lanes import in_share

SAME = 1e-9
"""Largest difference of a probability computed again; the last bits of products belong to the kind of CPU."""


@dataclass(frozen=True)
class Chance:
    """The draw behind a decision, computed again from a snapshot.

    Attributes
    ----------
    arms : tuple of str
        Labels of what was eligible.
    probabilities : tuple of float
        Probability of each under the policy.
    utilities : tuple of float
        Expected utility of each.
    best : str
        The one of the highest expected utility.
    propensity : float
        Probability of the arm taken, as the router states it in this mode.
    how : str
        What that rests on, in words.
    """

    arms: tuple[str, ...]
    probabilities: tuple[float, ...]
    utilities: tuple[float, ...]
    best: str
    propensity: float
    how: str

    def agrees(self, logged: float) -> bool:
        """Whether that is the probability that was logged."""
        return abs(self.propensity - logged) <= SAME


def chance(
    held: Held, features: Sequence[float], eligible: Sequence[int], arm: str, mode: str, trace_id: str, logged: float
) -> Chance:
    """Compute the draw behind a decision again.

    Parameters
    ----------
    held : Held
        The snapshot that decided.
    features : sequence of float
        x as logged, (d,).
    eligible : sequence of int
        Indices of the arms that were eligible; empty for all.
    arm : str
        What was taken.
    mode : str
        Mode of the decision, as in the trace event.
    trace_id : str
        Which side of a canary it was on.
    logged : float
        The propensity logged.

    Raises
    ------
    ValueError
        The policy has no such arm, or x is of another policy.
    """
    snapshot = held.snapshot
    x = np.asarray(features, dtype=np.float32)
    if x.shape != (snapshot.features.dim,):
        raise ValueError(f"the context has {x.size} features, the policy {snapshot.features.dim}")
    mask: NDArray[np.bool_] | None = None
    if len(eligible):
        mask = np.zeros(len(snapshot.arms), dtype=bool)
        mask[list(eligible)] = True
    scores = held.scorer.score(x, mask)
    among = [i for i in range(len(snapshot.arms)) if mask is None or mask[i]]
    drawn = float(scores.propensity[snapshot.arms.index(arm)]) if arm in snapshot.arms else 0.0
    if mode == "CANARY":
        share = snapshot.canary_share
        ours = in_share(trace_id, snapshot.policy, share)
        baseline = held.baseline if mask is None or mask[held.baseline] else int(mask.argmax())
        own = 1.0 if not ours or snapshot.arms.labels[baseline] == arm else 0.0
        side = "the policy drew" if ours else "the baseline decided"
        stated, how = (
            share * drawn + (1.0 - share) * own,
            f"canary of {share:.0%}: {side}; stated is the mixture of both",
        )
        if logged != stated and abs(logged - share * drawn - (1.0 - share)) <= SAME:
            stated, how = logged, f"canary of {share:.0%}: the service's own arm was the same"
    elif mode == "LIVE":
        stated, how = drawn, "drawn by the policy"
    else:
        said = {
            "HOLDOUT": "the control group: the baseline decided",
            "SHADOW": "shadow: the service or the baseline decided",
        }
        stated, how = 1.0, said.get(mode, "the policy could not be followed: the baseline decided")
    if logged == 1.0 and mode in ("LIVE", "CANARY") and stated != 1.0:
        stated, how = 1.0, "kept by its session, not drawn: of probability 1"
    return Chance(
        tuple(snapshot.arms.labels[i] for i in among),
        tuple(float(scores.propensity[i]) for i in among),
        tuple(float(scores.utility[i]) for i in among),
        snapshot.arms.labels[scores.greedy],
        min(stated, 1.0),
        how,
    )
