"""Why an arm: what each feature adds to each component, under the snapshot's weights, and with what probability. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steersman.features import Categorical, FeatureSpec
from steersman.held import Held
from steersman.lanes import in_share
from steersman.layout import make_layout
from steersman.snapshot import HEADS

UNITS = {"quality": ("", 1.0), "cost": ("USD", 1e-6), "latency": ("ms", 1e-3), "failures": ("", 1.0)}
"""Unit and factor in which a component is shown."""
_MOST = 8


@dataclass(frozen=True)
class Part:
    """What one feature adds to a component of the arm, against the mean of all arms.

    Attributes
    ----------
    feature : str
        Name of the column of x.
    value : float
        Its value in this context.
    weight : float
        Weight of the arm's levels less the mean of the arms; unit: the component's.
    adds : float
        value times weight; unit: the component's.
    """

    feature: str
    value: float
    weight: float
    adds: float


@dataclass(frozen=True)
class Why:
    """One component of one arm.

    Attributes
    ----------
    component, unit : str
        Name and unit.
    expected, mean, baseline : float
        Expected of the arm, of the arms on average, and of the baseline arm.
    parts : tuple of Part
        What makes the difference to the average, largest first; `rest` is what the others add.
    rest : float
        See `parts`.
    """

    component: str
    unit: str
    expected: float
    mean: float
    baseline: float
    parts: tuple[Part, ...]
    rest: float


def column_names(spec: FeatureSpec) -> list[str]:
    """Return the names of the d columns of x; the last is the constant's."""
    names: list[str] = []
    for one in spec.features:
        if isinstance(one, Categorical):
            names += [f"{one.name} = {value}" for value in one.values]
        elif one.width == 1:
            names.append(one.name)
        else:
            names += [f"{one.name}[{i}]" for i in range(one.width)]
    return [*names, "(always)"]


def explain(held: Held, features: list[float], arm: str) -> list[Why]:
    """Return what speaks for and against an arm, component by component.

    Parameters
    ----------
    held : Held
        The policy.
    features : list of float
        x as logged with the decision, (d,).
    arm : str
        Label of the arm.

    Raises
    ------
    ValueError
        The policy has no such arm, or x is of another policy.
    """
    snapshot = held.snapshot
    layout = make_layout(snapshot.arms, snapshot.features)
    chosen, base = snapshot.arms.index(arm), snapshot.arms.index(snapshot.baseline)
    x = np.asarray(features, dtype=np.float64)
    expected = held.scorer.components(x.astype(np.float32))
    names = column_names(snapshot.features)
    m = len(layout.columns)
    at = layout.dim + layout.n_levels * m
    made = []
    for head in HEADS:
        theta = snapshot.tensors[f"weights.{head}"].astype(np.float64)
        own = layout.level_of @ theta[layout.dim : at].reshape(layout.n_levels, m)
        own[:, -1] += layout.pair_of @ theta[at:]
        unit, factor = UNITS[head]
        weight = (own[chosen] - own.mean(axis=0)) * factor
        adds = weight * x[layout.columns]
        order = [int(i) for i in np.argsort(-np.abs(adds)) if adds[i] != 0.0]
        parts = tuple(
            Part(names[layout.columns[i]], float(x[layout.columns[i]]), float(weight[i]), float(adds[i]))
            for i in order[:_MOST]
        )
        values = getattr(expected, head) * factor
        made.append(
            Why(
                head, unit, float(values[chosen]), float(values.mean()), float(values[base]), parts,
                float(adds[order[_MOST:]].sum()),
            )
        )  # fmt: skip
    return made


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
