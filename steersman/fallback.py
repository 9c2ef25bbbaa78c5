"""The baseline arm without a snapshot: what is configured, bent to what is eligible."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from steersman.arms import Level, level_text, same_level
from steersman.held import Eligible, as_levels


def constrained(arm: Mapping[str, Level], eligible: Eligible) -> Mapping[str, Level]:
    """The arm, with what is not eligible replaced by something that is.

    Parameters
    ----------
    arm : mapping of str to level
        The configured baseline; may be empty.
    eligible : mapping, collection or None
        As for `Router.choose`.

    Returns
    -------
    mapping of str to level
        Read-only. A list or tuple is taken to be in order of preference; of a set the first by text is taken.
    """
    if eligible is None or not arm:
        return MappingProxyType(dict(arm))
    if isinstance(eligible, Mapping):
        return MappingProxyType({knob: _allowed(level, eligible.get(knob)) for knob, level in arm.items()})
    labels = [eligible] if isinstance(eligible, str) else _ordered(eligible)
    if not labels or label_of(arm) in labels:
        return MappingProxyType(dict(arm))
    return MappingProxyType(parse_label(str(labels[0])))


def label_of(arm: Mapping[str, Level]) -> str:
    """Label of an arm whose knobs are in the policy's order."""
    return ";".join(f"{knob}={level_text(level)}" for knob, level in arm.items())


def parse_label(label: str) -> dict[str, Level]:
    """The arm that a label names, its levels read as boolean, integer or number where they look like one."""
    pairs = (part.partition("=") for part in label.split(";") if "=" in part)
    return {knob: _level(text) for knob, _, text in pairs}


def _level(text: str) -> Level:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            level = kind(text)
        except ValueError:
            continue
        if level_text(level) == text:
            return level
    return text


def _allowed(level: Level, levels: Collection[Level] | Level | None) -> Level:
    if levels is None:
        return level
    choices = _ordered(as_levels(levels))
    if not choices or any(same_level(level, other) for other in choices):
        return level
    return choices[0]


def _ordered(levels: Collection[Level]) -> list[Level]:
    return sorted(levels, key=level_text) if isinstance(levels, set | frozenset) else list(levels)
