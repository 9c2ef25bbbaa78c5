"""What ran, in the words of a candidate: which arm is which, which column of x is which, and what the log cannot tell. Pure.

A reward on the log names an arm and holds a context, encoded. A candidate may have other arms and look at less of the context;
it learns what can be said in its own words:

- a *knob that the candidate lacks* is taken to stay at the level of the baseline that ran; decisions at its other levels say nothing;
- a *knob that is new* is taken to be at the candidate's baseline level when it was not there yet; its other levels have no data;
- a *new level* has no data; a *removed* one takes its decisions along;
- a *feature* that is new, or encoded otherwise, cannot be had: what is on the log is x, not the context.

Weights, ceilings, scales, exploration, learner, default quality and prices may all be others: what they need is on the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learners.spec import PolicySpec
from learners.succession import repriced
from steersman.arms import Level, level_text
from steersman.errors import ConfigError
from steersman.features import Categorical, FeatureSpec

Float = NDArray[np.float64]


class NotAnswerable(ConfigError):
    """The log of rewards cannot tell what this candidate would have done."""


@dataclass(frozen=True, eq=False)
class Translation:
    """How the log of a policy reads for a candidate.

    Attributes
    ----------
    ran : PolicySpec
        What decided.
    candidate : PolicySpec
        What is asked about: in one shard and without a guard.
    to_ran : int64 array (K,)
        For each arm of the candidate the arm that ran; -1 where none did.
    to_candidate : int64 array (K_ran,)
        The inverse; -1 where the candidate has no such arm.
    columns : int64 array (d,)
        For each column of the candidate's x the column of the logged one.
    price : float64 array (K_ran,)
        How many times as much each arm costs under the candidate's prices.
    remarks : tuple of str
        What is taken for granted, and what is left out, in sentences.
    unseen : tuple of str
        Levels that have no data, as ``knob=level``.
    """

    ran: PolicySpec
    candidate: PolicySpec
    to_ran: NDArray[np.int64]
    to_candidate: NDArray[np.int64]
    columns: NDArray[np.int64]
    price: Float
    remarks: tuple[str, ...]
    unseen: tuple[str, ...]


def translate(ran: PolicySpec, candidate: PolicySpec) -> Translation:
    """Compare what ran with a candidate.

    Parameters
    ----------
    ran, candidate : PolicySpec
        Of the same tenant and name.

    Raises
    ------
    NotAnswerable
        When the quality is another metric, a feature is not on the log, or no arm of the candidate ever ran.
    """
    if candidate.reward.metric != ran.reward.metric:
        raise NotAnswerable(
            f"policy {candidate.key}: the candidate's quality is the metric {candidate.reward.metric!r}, and the log holds "
            f"{ran.reward.metric!r}: nothing on it says what the candidate would have earned. Put both metrics on the trace topic and "
            "run the candidate in shadow"
        )
    columns = _columns(ran.features, candidate)
    one = replace(candidate, shards=1, guard=None)
    settings = {_setting(arm): i for i, arm in enumerate(ran.arms.arms)}
    to_ran = np.array([settings.get(key, -1) if key else -1 for key in _as_ran(ran, one)], dtype=np.int64)
    if (to_ran < 0).all():
        raise NotAnswerable(
            f"policy {candidate.key}: none of the candidate's arms ever ran, so the log has nothing to say"
        )
    to_candidate = np.full(len(ran.arms), -1, dtype=np.int64)
    known = np.flatnonzero(to_ran >= 0)
    to_candidate[to_ran[known]] = known
    price = repriced(ran.arms, ran.prices, one.prices)
    unseen = _unseen(one, to_ran)
    return Translation(
        ran, one, to_ran, to_candidate, columns, price, tuple(_remarks(ran, candidate, price)), tuple(unseen)
    )


def _columns(ran: FeatureSpec, candidate: PolicySpec) -> NDArray[np.int64]:
    places = {key: i for i, key in enumerate(_column_keys(ran))}
    found = []
    for key in _column_keys(candidate.features):
        if key not in places:
            raise NotAnswerable(
                f"policy {candidate.key}: feature {key[0]!r} is new or encoded otherwise than it was, and the log holds encoded contexts "
                "only; leave it as it was, or run the candidate in shadow"
            )
        found.append(places[key])
    return np.array(found, dtype=np.int64)


def _column_keys(spec: FeatureSpec) -> Iterator[tuple[Any, ...]]:
    """What each column of x means, the last being the constant."""
    for feature in spec.features:
        if isinstance(feature, Categorical):
            yield from ((feature.name, value) for value in feature.values)
        else:
            means = feature.model_dump_json()
            yield from ((feature.name, means, i) for i in range(feature.width))
    yield ("",)


def _as_ran(ran: PolicySpec, candidate: PolicySpec) -> Iterator[frozenset[tuple[str, str]]]:
    """The setting of each of the candidate's arms in the knobs that ran; empty where a new knob is off its baseline."""
    stays = {knob: level for knob, level in _baseline(ran).items() if knob not in candidate.arms.knobs}
    new = {knob: level for knob, level in _baseline(candidate).items() if knob not in ran.arms.knobs}
    for arm in candidate.arms.arms:
        if any(level_text(arm[knob]) != level_text(level) for knob, level in new.items()):
            yield frozenset()
            continue
        yield _setting({**{knob: level for knob, level in arm.items() if knob not in new}, **stays})


def _baseline(spec: PolicySpec) -> Mapping[str, Level]:
    return spec.arms.arms[spec.arms.index(spec.baseline)]


def _setting(arm: Mapping[str, Level]) -> frozenset[tuple[str, str]]:
    return frozenset((knob, level_text(level)) for knob, level in arm.items())


def _unseen(candidate: PolicySpec, to_ran: NDArray[np.int64]) -> list[str]:
    """Levels of which no arm ever ran."""
    levels, found = candidate.arms.levels, []
    for k, (knob, of_knob) in enumerate(candidate.arms.knobs.items()):
        for i, level in enumerate(of_knob):
            arms = levels[:, k] == i
            if arms.any() and (to_ran[arms] < 0).all():
                found.append(f"{knob}={level_text(level)}")
    return found


def _remarks(ran: PolicySpec, candidate: PolicySpec, price: Float) -> Iterator[str]:
    old, new = _baseline(ran), _baseline(candidate)
    for knob in ran.arms.knobs:
        if knob not in candidate.arms.knobs:
            yield (
                f"The candidate has no knob {knob}: it is taken to stay at {level_text(old[knob])}, the baseline's level; decisions at "
                "other levels say nothing about it."
            )
    for knob in candidate.arms.knobs:
        if knob not in ran.arms.knobs:
            yield f"The knob {knob} is new: what ran is taken to have had it at {level_text(new[knob])}, the candidate's baseline level."
    before, after = ran.reward, candidate.reward
    for name, what in (
        ("aggregation", "aggregated"), ("window_s", "waited for"), ("credit", "charged"),
        ("quality_credit", "credited"), ("share", "shared"), ("peers", "compared with peers"), ("penalties", "penalised"),
    ):  # fmt: skip
        if getattr(before, name) != getattr(after, name):
            yield (
                f"reward.{name} is another one in the candidate: what is on the log was {what} as it ran, and is evaluated so; what the "
                "change does cannot be told."
            )
    if candidate.guard is not None:
        yield "The candidate's guard is left out: the answer is about its policy, live from the first decision."
    if candidate.switch_cost is not None:
        yield "Sessions are not replayed: the candidate decides every request anew, though its file says that sessions keep their arms."
    if after.tenant_ceilings or any(value is not None for value in vars(after.ceilings).values()):
        yield (
            "The candidate's ceilings are kept by the prices that its own forecasts make; what it would have overspent itself is not "
            "known, so nothing is paid back."
        )
    if (price != 1.0).any():
        yield "Costs on the log are put to the candidate's prices."
