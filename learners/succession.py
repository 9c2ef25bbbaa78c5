"""What a policy's next epoch takes over when only its arms have changed, and what a changed price does. Pure.

Sums per arm mean the same as long as features and components do. So an arm that stays keeps its sums; one that is gone
takes its own along. An arm with a new level begins with a few events' worth of what its neighbours are: between the next
levels below and above where levels are numbers, else in the middle of all; and where prices are declared, at its own price.
These events are shared by all arms with that level: a level that comes with many arms must not begin as if it were well known.
The factored model adds what the other knobs' levels are known to do.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from steersman.arms import ArmSpace, Level, level_text, same_level

from .moments import Moments

Float = NDArray[np.float64]
Prices = Mapping[str, Mapping[str, float]]

NEIGHBOURS = 4.0
"""Events that what the neighbours are is worth: of all arms with a new level together, since they share what is learned of it."""


def repriced(arms: ArmSpace, before: Prices, after: Prices) -> Float:
    """How many times as much each arm costs under other prices, float64 (K,); 1 where a price is not known before and after."""
    factors = np.ones(len(arms))
    for i, arm in enumerate(arms.arms):
        for knob, level in arm.items():
            factors[i] *= _ratio(knob, level, level, before, after)
    return factors


def take_over(
    arms: ArmSpace, moments: Moments, old_arms: ArmSpace, old: Float, before: Prices, after: Prices
) -> list[int]:
    """Put an old epoch's sums (K_old, 2, W) into a new one's, which are empty; returns the arms that are new and have neighbours."""
    if set(arms.knobs) != set(old_arms.knobs) or old.shape[1:] != moments.sums.shape[1:]:
        return []
    place = {_setting(arm): i for i, arm in enumerate(old_arms.arms)}
    fresh = []
    costs = np.ones(len(arms))
    for i, arm in enumerate(arms.arms):
        at = place.get(_setting(arm))
        if at is not None:
            moments.sums[i] = old[at]
            costs[i] = repriced_arm(arm, arm, before, after)
            continue
        fresh.append(i)
        _begin(i, arm, moments, old_arms, old, place, (before, after), _sharers(arm, arms, old_arms))
    moments.reprice(costs)
    return fresh


def repriced_arm(old: Mapping[str, Level], new: Mapping[str, Level], before: Prices, after: Prices) -> float:
    """How many times as much an arm under the new prices costs as another one did under the old ones."""
    factor = 1.0
    for knob, level in new.items():
        factor *= _ratio(knob, old[knob], level, before, after)
    return factor


def _begin(
    i: int,
    arm: Mapping[str, Level],
    moments: Moments,
    old_arms: ArmSpace,
    old: Float,
    place: Mapping[frozenset[tuple[str, str]], int],
    prices: tuple[Prices, Prices],
    sharers: int,
) -> None:
    """Fill in what the neighbours of a new arm are, which has its new level together with so many arms, itself included."""
    ways = [[(knob, near, w) for near, w in neighbours(level, old_arms.knobs[knob])] for knob, level in arm.items()]
    found = Moments(1, moments.dim)
    total = 0.0
    for way in itertools.product(*ways):
        other = {knob: level for knob, level, _ in way}
        at = place.get(_setting(other))
        if at is None:
            continue
        events = float(old[at, :, -1].sum())
        weight = float(np.prod([w for _, _, w in way]))
        if events <= 0.0 or weight <= 0.0:
            continue
        one = Moments(1, moments.dim)
        one.sums[0] = old[at] * (weight / events)
        one.reprice(np.array([repriced_arm(other, arm, *prices)]))
        found.merge(one)
        total += weight
    if total > 0.0:
        moments.sums[i] = found.sums[0] * (NEIGHBOURS / (total * sharers))


def _sharers(arm: Mapping[str, Level], arms: ArmSpace, old_arms: ArmSpace) -> int:
    """How many arms have the same new level as a new arm; 1 where only the combination is new."""
    most = 1
    for knob, level in arm.items():
        if not any(same_level(level, other) for other in old_arms.knobs[knob]):
            most = max(most, sum(same_level(level, other[knob]) for other in arms.arms))
    return most


def neighbours(level: Level, levels: tuple[Level, ...]) -> list[tuple[Level, float]]:
    """Levels that say something about a level, with their weights, which add up to 1: itself, the next ones, or all."""
    same = [other for other in levels if same_level(level, other)]
    if same:
        return [(same[0], 1.0)]
    numbers = sorted(other for other in levels if isinstance(other, int | float) and not isinstance(other, bool))
    if isinstance(level, str | bool) or len(numbers) < len(levels):
        return [(other, 1.0 / len(levels)) for other in levels]
    below = [number for number in numbers if number < level]
    above = [number for number in numbers if number > level]
    if not below or not above:
        return [((below or above)[-1 if below else 0], 1.0)]
    share = (level - below[-1]) / (above[0] - below[-1])
    return [(below[-1], 1.0 - share), (above[0], share)]


def _setting(arm: Mapping[str, Level]) -> frozenset[tuple[str, str]]:
    return frozenset((knob, level_text(level)) for knob, level in arm.items())


def _ratio(knob: str, old: Level, new: Level, before: Prices, after: Prices) -> float:
    was, is_now = before.get(knob, {}).get(level_text(old)), after.get(knob, {}).get(level_text(new))
    return 1.0 if was is None or is_now is None else is_now / was
