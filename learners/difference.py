"""What differs between two versions of a policy: settings, arms, levels, weights. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from steersman.arms import level_text
from steersman.held import Held
from steersman.snapshot import HEADS, PolicySnapshot

from .knobs import level_reports
from .why import UNITS, column_names

MOST_WEIGHTS = 20
"""Weights that are listed, those that changed most."""


@dataclass(frozen=True)
class Change:
    """One difference; values are JSON-ready."""

    what: str
    old: Any
    new: Any


@dataclass(frozen=True)
class ArmChange:
    """An arm at the average context; None where a version does not have it. Costs in USD, latencies in milliseconds."""

    arm: str
    probability: tuple[float | None, float | None]
    utility: tuple[float | None, float | None]
    quality: tuple[float | None, float | None]
    cost: tuple[float | None, float | None]
    latency: tuple[float | None, float | None]


@dataclass(frozen=True)
class WeightChange:
    """What a feature adds to a component through a level of a knob, per unit of the feature; unit: the component's."""

    component: str
    unit: str
    knob: str
    level: str
    feature: str
    old: float
    new: float


@dataclass(frozen=True)
class Difference:
    """See the module.

    Attributes
    ----------
    settings
        All but the weights.
    arms
        All arms, those whose probability changed most first.
    levels
        Share of each level, knob by knob.
    weights
        The `MOST_WEIGHTS` that changed most in relation to their component's largest; none where the two versions have
        other knobs, features or encoders.
    note
        Why there are no weights.
    """

    settings: list[Change]
    arms: list[ArmChange]
    levels: list[Change]
    weights: list[WeightChange]
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def settings_of(snapshot: PolicySnapshot) -> dict[str, Any]:
    """All that a snapshot says but its weights, JSON-ready, in an order for people."""
    return {
        "epoch": snapshot.epoch,
        "version": snapshot.version,
        "stage": snapshot.stage.lower(),
        "canary_share": snapshot.canary_share,
        "pinned": snapshot.pinned,
        "acts": snapshot.acts,
        "revision": snapshot.revision,
        "baseline": snapshot.baseline,
        **{f"knobs.{knob}": [level_text(level) for level in levels] for knob, levels in snapshot.arms.knobs.items()},
        "arms": len(snapshot.arms),
        **{f"features.{one.name}": one.model_dump(exclude={"name"}) for one in snapshot.features.features},
        "learner": snapshot.learner,
        "exploration": snapshot.exploration,
        "exploration_scale": snapshot.exploration_scale,
        "floor": snapshot.floor,
        **{f"weight.{term.component}": term.weight for term in snapshot.objective},
        **{f"scale.{term.component}": term.scale for term in snapshot.objective},
        **{
            f"multiplier.{one.component}" + (f".{one.tenant}" if one.tenant else ""): one.value
            for one in snapshot.multipliers
        },
        "tenant_feature": snapshot.tenant_feature,
        "reward_spec": snapshot.reward_spec,
        "switch_cost": snapshot.switch_cost,
        "inherited": snapshot.inherited,
    }


def difference(old: Held, new: Held) -> Difference:
    """Compare two versions of a policy."""
    one, other = settings_of(old.snapshot), settings_of(new.snapshot)
    settings = [
        Change(name, one.get(name), other.get(name)) for name in {**one, **other} if one.get(name) != other.get(name)
    ]
    arms, levels = _arms(old, new), _levels(old, new)
    same = (
        old.snapshot.arms.knobs == new.snapshot.arms.knobs
        and old.snapshot.features == new.snapshot.features
        and old.snapshot.layout.size == new.snapshot.layout.size
        and not any(name.startswith("encoder.") for name in (*old.snapshot.tensors, *new.snapshot.tensors))
    )
    if not same:
        note = "single weights do not compare: the versions have other knobs or features, or a neural encoder"
        return Difference(settings, arms, levels, [], note)
    return Difference(settings, arms, levels, _weights(old.snapshot, new.snapshot))


def _table(held: Held) -> dict[str, tuple[float, ...]]:
    x = held.snapshot.features.encode({})
    scores, expected = held.scorer.score(x), held.scorer.components(x)
    columns = (
        scores.propensity,
        scores.utility,
        expected.quality,
        expected.cost * UNITS["cost"][1],
        expected.latency * UNITS["latency"][1],
    )
    return {label: tuple(float(c[i]) for c in columns) for i, label in enumerate(held.snapshot.arms.labels)}


def _arms(old: Held, new: Held) -> list[ArmChange]:
    one, other = _table(old), _table(new)
    made = []
    for arm in {**one, **other}:
        before, after = one.get(arm, (None,) * 5), other.get(arm, (None,) * 5)
        made.append(ArmChange(arm, *zip(before, after, strict=True)))
    return sorted(made, key=lambda a: (-abs((a.probability[1] or 0.0) - (a.probability[0] or 0.0)), a.arm))


def _levels(old: Held, new: Held) -> list[Change]:
    def shares(held: Held) -> dict[str, float]:
        reports = level_reports(held, held.snapshot.features.encode({}))
        return {f"{one.knob} = {one.level}": one.share for one in reports}

    one, other = shares(old), shares(new)
    return [Change(name, one.get(name), other.get(name)) for name in {**one, **other}]


def _weights(old: PolicySnapshot, new: PolicySnapshot) -> list[WeightChange]:
    layout, names = old.layout, column_names(old.features)
    m = len(layout.columns)
    blocks = [(knob, level_text(level)) for knob, levels in old.arms.knobs.items() for level in levels]
    found: list[tuple[float, WeightChange]] = []
    for head in HEADS:
        unit, factor = UNITS[head]
        of = [
            snapshot.tensors[f"weights.{head}"][layout.dim : layout.dim + layout.n_levels * m]
            .astype(np.float64)
            .reshape(layout.n_levels, m)
            * factor
            for snapshot in (old, new)
        ]
        largest = max(float(np.abs(of[0]).max()), float(np.abs(of[1]).max()))
        for row, column in zip(*np.nonzero(of[0] != of[1]), strict=True):
            before, after = float(of[0][row, column]), float(of[1][row, column])
            knob, level = blocks[row]
            change = WeightChange(head, unit, knob, level, names[layout.columns[column]], before, after)
            found.append((abs(after - before) / largest, change))
    found.sort(key=lambda one: -one[0])
    return [change for _, change in found[:MOST_WEIGHTS]]


def shown(value: Any) -> str:
    """A setting for people."""
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
