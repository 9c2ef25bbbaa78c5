"""Why an arm: what each feature adds to each component, under the snapshot's weights. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steersman.features import Categorical, FeatureSpec
from steersman.held import Held
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
    made = []
    for head in HEADS:
        _, own = layout.by_arm(snapshot.tensors[f"weights.{head}"].astype(np.float64))
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
