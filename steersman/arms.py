"""The arms of a policy: every joint setting of its knobs that is not forbidden.

An arm is one level per knob. Arms are the cartesian product of the knobs' levels in row-major order (the last knob
turns fastest), less the forbidden combinations, so that agent, worker and warehouse number them alike.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Level = str | int | float | bool

MAX_ARMS = 4096
_KNOB = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")


def level_text(level: Level) -> str:
    """Text of a level inside a label: ``true``/``false`` for bools, ``repr`` for numbers, the string itself else."""
    if isinstance(level, bool):
        return "true" if level else "false"
    return level if isinstance(level, str) else repr(level)


def same_level(one: object, other: object) -> bool:
    """Whether two levels are the same setting: equal values, but a bool is never a number (4 is 4.0, 1 is not true)."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _check_level(knob: str, level: object) -> Level:
    if isinstance(level, str):
        if not level or ";" in level or not level.isprintable():
            raise ValueError(f"knob {knob!r}: level {level!r} must be printable, not empty and free of ';'")
        return level
    if isinstance(level, bool | int):
        return level
    if isinstance(level, float) and math.isfinite(level):
        return level
    raise ValueError(f"knob {knob!r}: level {level!r} must be a string, a finite number or a boolean")


class ArmSpace:
    """All arms of a policy, in their fixed order.

    Parameters
    ----------
    knobs : mapping of str to sequence of levels
        Knobs in order, each with its distinct levels (at least one).
    forbidden : sequence of mappings, optional
        Combinations knob -> level that no arm may contain; each may name some of the knobs.

    Attributes
    ----------
    knobs : mapping of str to tuple of levels
    forbidden : tuple of mappings
    arms : tuple of mappings
        Arm *i* as knob -> level, in row-major order of the knobs.
    labels : tuple of str
        ``knob=level;knob=level`` in knob order.
    levels : int64 array (K, n_knobs)
        Index of the level of each knob in each arm.

    Raises
    ------
    ValueError
        For an empty or ill-named knob, a repeated or ill-typed level, a forbidden combination that names an unknown
        knob or level, no arm left, or more than 4,096 arms.
    """

    __slots__ = ("_index", "arms", "forbidden", "knobs", "labels", "levels")

    def __init__(self, knobs: Mapping[str, Sequence[Level]], forbidden: Sequence[Mapping[str, Level]] = ()) -> None:
        if not knobs:
            raise ValueError("a policy needs at least one knob")
        typed: dict[str, tuple[Level, ...]] = {}
        for name, levels in knobs.items():
            if not _KNOB.match(name):
                raise ValueError(f"knob {name!r}: a name is a letter or _, then letters, digits, _ . -")
            if isinstance(levels, str) or not levels:
                raise ValueError(f"knob {name!r}: needs a list of at least one level")
            checked = tuple(_check_level(name, level) for level in levels)
            for i, level in enumerate(checked):
                if any(same_level(level, other) or level_text(level) == level_text(other) for other in checked[:i]):
                    raise ValueError(f"knob {name!r}: level {level_text(level)} is listed twice")
            typed[name] = checked
        count = math.prod(len(levels) for levels in typed.values())
        if count > MAX_ARMS:
            raise ValueError(f"the knobs make {count} arms, more than {MAX_ARMS}: use fewer levels")
        bans = [self._ban(typed, ban) for ban in forbidden]
        rows = [
            row
            for row in itertools.product(*(range(len(levels)) for levels in typed.values()))
            if not any(all(row[k] == level for k, level in ban) for ban in bans)
        ]
        if not rows:
            raise ValueError("every arm is forbidden")
        names = tuple(typed)
        self.knobs: Mapping[str, tuple[Level, ...]] = MappingProxyType(typed)
        self.forbidden: tuple[Mapping[str, Level], ...] = tuple(
            MappingProxyType({names[k]: typed[names[k]][level] for k, level in ban}) for ban in bans
        )
        self.arms: tuple[Mapping[str, Level], ...] = tuple(
            MappingProxyType({name: typed[name][level] for name, level in zip(names, row, strict=True)}) for row in rows
        )
        self.labels: tuple[str, ...] = tuple(
            ";".join(f"{name}={level_text(level)}" for name, level in arm.items()) for arm in self.arms
        )
        self.levels: NDArray[np.int64] = np.array(rows, dtype=np.int64)
        self.levels.setflags(write=False)
        self._index = {label: i for i, label in enumerate(self.labels)}

    @staticmethod
    def _ban(knobs: Mapping[str, tuple[Level, ...]], ban: Mapping[str, Level]) -> tuple[tuple[int, int], ...]:
        if not ban:
            raise ValueError("a forbidden combination must name at least one knob")
        names = tuple(knobs)
        out = []
        for name, level in ban.items():
            if name not in knobs:
                raise ValueError(f"forbidden combination names the unknown knob {name!r}")
            found = [i for i, known in enumerate(knobs[name]) if same_level(known, level)]
            if not found:
                raise ValueError(f"forbidden combination: knob {name!r} has no level {level!r}")
            out.append((names.index(name), found[0]))
        return tuple(sorted(out))

    def index(self, label: str) -> int:
        """Index of the arm with this label; ValueError when no arm has it."""
        try:
            return self._index[label]
        except KeyError:
            raise ValueError(f"no arm {label!r}; the arms are {self._some()}") from None

    def label_of(self, arm: Mapping[str, Level]) -> str:
        """Label of an arm given as knob -> level; ValueError when it is not one of the arms."""
        if set(arm) != set(self.knobs):
            raise ValueError(f"an arm names exactly the knobs {', '.join(self.knobs)}; got {dict(arm)!r}")
        parts = []
        for name, levels in self.knobs.items():
            found = [level for level in levels if same_level(level, arm[name])]
            if not found:
                raise ValueError(f"knob {name!r} has no level {arm[name]!r}")
            parts.append(f"{name}={level_text(found[0])}")
        label = ";".join(parts)
        if label not in self._index:
            raise ValueError(f"the arm {label!r} is forbidden")
        return label

    def to_record(self) -> dict[str, Any]:
        """The ``knobs`` and ``forbidden`` fields of a policy snapshot record."""
        return {
            "knobs": [
                {"name": name, "levels": [json.dumps(level) for level in levels]} for name, levels in self.knobs.items()
            ],
            "forbidden": [json.dumps(dict(ban), sort_keys=True) for ban in self.forbidden],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ArmSpace:
        """Inverse of `to_record`; ValueError for anything that is not a legal arm space."""
        knobs: dict[str, list[Level]] = {}
        for knob in record["knobs"]:
            if knob["name"] in knobs:
                raise ValueError(f"knob {knob['name']!r} is listed twice")
            knobs[knob["name"]] = [json.loads(level) for level in knob["levels"]]
        forbidden = [json.loads(ban) for ban in record["forbidden"]]
        if not all(isinstance(ban, dict) for ban in forbidden):
            raise ValueError("a forbidden combination must be a JSON object")
        return cls(knobs, cast("list[Mapping[str, Level]]", forbidden))

    def _some(self) -> str:
        shown = ", ".join(self.labels[:8])
        return shown if len(self.labels) <= 8 else f"{shown}, ... ({len(self.labels)} in all)"

    def __contains__(self, label: object) -> bool:
        """Whether an arm has this label."""
        return label in self._index

    def __len__(self) -> int:
        return len(self.labels)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArmSpace) and self.to_record() == other.to_record()

    def __hash__(self) -> int:
        return hash(self.labels)

    def __repr__(self) -> str:
        return f"ArmSpace({self._some()})"
