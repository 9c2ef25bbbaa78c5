"""The sides of the ledger's equations, and their comparison. Pure.

A side is a multiset of records in groups (of a tenant and minute, of a policy), each as a fingerprint; the records
themselves are asked for only where fingerprints differ.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from steersman.fingerprint import Fingerprint, hash64

LISTED: Final = 20
"""Most differing ids that an equation lists."""

Key = tuple[str | int, ...]
"""What a group is of: names, and minutes since 1970-01-01 UTC as integers."""


class Member(NamedTuple):
    """One record of a group; `place` says where it was found."""

    id: str
    amount: int = 0
    place: str = ""


Members = Callable[[Collection[Key]], Mapping[Key, Iterable[Member]]]
"""Loads the records of some groups."""


@dataclass(frozen=True)
class Side:
    """One side of an equation.

    Attributes
    ----------
    name
        What it is, for messages.
    groups
        Fingerprint of each group.
    members
        Loads records; None where only sums are kept.
    """

    name: str
    groups: Mapping[Key, Fingerprint]
    members: Members | None = None


@dataclass(frozen=True)
class Equation:
    """An equation, both of its numbers, and whether they are equal.

    Attributes
    ----------
    id, name
        Short and long name.
    left, right
        The numbers of both sides, by what they are.
    ok
        Whether they agree, or there was nothing to compare (see `note`).
    differing
        At most `LISTED` ids (or groups, where no ids are kept) that are not the same on both sides.
    note
        What else has to be known to read it.
    """

    id: str
    name: str
    left: dict[str, Any]
    right: dict[str, Any]
    ok: bool
    differing: list[str] = field(default_factory=list)
    note: str = ""


def side_of(name: str, members: Mapping[Key, Iterable[Member]]) -> Side:
    """Make a side of records that are all at hand."""
    kept = {key: list(group) for key, group in members.items()}
    return Side(
        name, {key: fingerprint(group) for key, group in kept.items()}, lambda keys: {k: kept.get(k, []) for k in keys}
    )


def fingerprint(members: Iterable[Member]) -> Fingerprint:
    """Fingerprint of some records."""
    made = Fingerprint()
    for member in members:
        made.add(member.id, member.amount)
    return made


def compare(identity: str, name: str, left: Side, right: Side) -> Equation:
    """Compare two sides group by group.

    Returns
    -------
    Equation
        Not ok when any group differs in count, ids or amounts; order and batching do not matter.
    """
    empty = Fingerprint()
    keys = sorted(
        (
            k
            for k in left.groups.keys() | right.groups.keys()
            if left.groups.get(k, empty) != right.groups.get(k, empty)
        ),
        key=str,
    )
    return Equation(
        identity, name, _numbers(left), _numbers(right), not keys, _differing(keys, left, right) if keys else []
    )


def total(groups: Mapping[Key, Fingerprint]) -> Fingerprint:
    """Fingerprint of all groups together."""
    made = Fingerprint()
    for one in groups.values():
        made.merge(one)
    return made


def label(key: Key) -> str:
    """Write the name of a group."""
    return " ".join(minute_text(part) if isinstance(part, int) else part or "(none)" for part in key)


def minute_text(minute: int) -> str:
    """Write a minute as ISO 8601 in UTC."""
    return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%MZ")


def _numbers(side: Side) -> dict[str, Any]:
    whole = total(side.groups)
    return {
        "of": side.name,
        "n": whole.n,
        "amount": whole.amount,
        "id_sum": f"{whole.total:016x}",
        "id_xor": f"{whole.xor:016x}",
    }


def _differing(keys: list[Key], left: Side, right: Side) -> list[str]:
    lines: list[str] = []
    # Groups one at a time: there is no need for the records of those behind the last line.
    for key in keys:
        if len(lines) >= LISTED:
            break
        ours = list(left.members([key]).get(key, ())) if left.members else None
        theirs = list(right.members([key]).get(key, ())) if right.members else None
        if ours is not None and theirs is not None:
            lines += _by_id(key, left, ours, right, theirs)
        else:
            lines.append(_by_sums(key, left, right, ours if ours is not None else theirs or []))
    return lines[:LISTED]


def _by_id(key: Key, left: Side, ours: list[Member], right: Side, theirs: list[Member]) -> list[str]:
    lines = []
    amounts: dict[str, tuple[Counter[int], Counter[int]]] = {}
    places: dict[str, tuple[list[str], list[str]]] = {}
    for index, members in enumerate((ours, theirs)):
        for member in members:
            amounts.setdefault(member.id, (Counter(), Counter()))[index][member.amount] += 1
            places.setdefault(member.id, ([], []))[index].append(member.place)
    for identity, (a, b) in sorted(amounts.items()):
        if a == b:
            continue
        if a.total() == b.total():
            lines.append(
                f"{identity} ({label(key)}): amount {_listed(a.elements())} in {left.name}{_at(places[identity][0])}, "
                f"{_listed(b.elements())} in {right.name}{_at(places[identity][1])}"
            )
        else:
            lines.append(
                f"{identity} ({label(key)}): {a.total()} in {left.name}{_at(places[identity][0])}, "
                f"{b.total()} in {right.name}{_at(places[identity][1])}"
            )
    return lines


def _by_sums(key: Key, left: Side, right: Side, known: list[Member]) -> str:
    """Say how a group differs of which one side has only sums; a single record too many names itself by its hash."""
    a, b = left.groups.get(key, Fingerprint()), right.groups.get(key, Fingerprint())
    line = f"{label(key)}: {a.n} (amount {a.amount}) in {left.name}, {b.n} (amount {b.amount}) in {right.name}"
    if abs(a.n - b.n) == 1:
        odd = next((m for m in known if hash64(m.id) == a.xor ^ b.xor), None)
        if odd is not None:
            line += (
                f"; {odd.id}{_at([odd.place])} is {'only or more often' if a.n > b.n else 'less often'} in {left.name}"
            )
    return line


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _at(places: Collection[str]) -> str:
    found = [place for place in places if place]
    return f" at {', '.join(sorted(found)[:5])}" if found else ""
