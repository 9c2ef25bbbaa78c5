"""Raw rows against window aggregates: the equation that may leave a remainder, the events that came too late. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeVar

from console.verify.equations import LISTED, Equation

OVERFLOW = "__other__"
"""Tenant under which windows beyond the cap on keys are kept (`streams.rollup`)."""


K = TypeVar("K")


class Count(NamedTuple):
    """Events and their amount."""

    n: int = 0
    amount: int = 0

    def plus(self, other: Count) -> Count:
        """Add up."""
        return Count(self.n + other.n, self.amount + other.amount)

    def minus(self, other: Count) -> Count:
        """Take away."""
        return Count(self.n - other.n, self.amount - other.amount)


class WindowKey(NamedTuple):
    """Events of one kind in one window of a tenant."""

    tenant: str
    kind: str
    start_us: int


Windows = Mapping[WindowKey, Count]
NOTHING: Mapping[str, Count] = {}


def compare_windows(
    raw: Windows,
    rollups: Windows,
    too_late: Mapping[str, Count],
    *,
    exact: bool,
    forgotten: Mapping[str, Count] = NOTHING,
) -> Equation:
    """Compare events with the windows that counted them.

    Parameters
    ----------
    raw, rollups
        Distinct valid events by the window of their event time; what the windows say.
    too_late
        By tenant, the events that no window counts since theirs had closed.
    exact
        Whether `too_late` is of just these events: then they must fill the remainder to the unit. Otherwise, for a part
        of the log, they are its bound.
    forgotten
        By tenant, events that windows count and whose rows were deleted on request. Of such a tenant all windows are compared
        together, and of a part of the log none.
    """
    if forgotten:
        raw, rollups = (_together(windows, forgotten, keep=exact) for windows in (raw, rollups))
        if exact:
            raw = {**raw, **{k: c.plus(raw.get(k, Count())) for k, c in _lines(forgotten).items()}}
        else:
            too_late = {tenant: one for tenant, one in too_late.items() if tenant not in forgotten}
    # Windows beyond the cap forget whose they are; there only all tenants together can be compared.
    spilled = any(key.tenant == OVERFLOW for key in rollups)
    left, right = (_one_tenant(raw), _one_tenant(rollups)) if spilled else (raw, rollups)
    allowed = {"*": _sum(too_late)} if spilled else dict(too_late)
    rest: dict[str, Count] = {}
    odd: dict[str, list[tuple[WindowKey, Count]]] = {}
    differing: list[str] = []
    for key in sorted(left.keys() | right.keys()):
        gap = left.get(key, Count()).minus(right.get(key, Count()))
        if gap == Count():
            continue
        rest[key.tenant] = rest.get(key.tenant, Count()).plus(gap)
        odd.setdefault(key.tenant, []).append((key, gap))
        if gap.n <= 0:
            differing.append(_line(key, left, right))
    for tenant in sorted(rest.keys() | (allowed.keys() if exact else set())):
        gap, most = rest.get(tenant, Count()), allowed.get(tenant, Count())
        fits = gap == most if exact else 0 <= gap.n <= most.n and 0 <= gap.amount <= most.amount
        if not fits:
            lines = [_line(key, left, right) for key, _ in odd.get(tenant, [])]
            differing += [line for line in lines if line not in differing]
            if not lines or most.n:
                differing.append(
                    f"{tenant}: {gap.n} events (amount {gap.amount}) are in no window, {most.n} (amount {most.amount}) "
                    "came too late for one"
                )
    a, b, late = _sum(raw), _sum(rollups), _sum(too_late)
    return Equation(
        "E3",
        "stored events = events of the windows + too late",
        {"of": "trace_events and forgotten" if forgotten and exact else "trace_events", "n": a.n, "amount": a.amount},
        {
            "of": "rollups and ledger",
            "n": b.n + late.n if exact else b.n,
            "amount": b.amount + late.amount if exact else b.amount,
        }
        | {"too_late": late.n},
        not differing,
        differing[:LISTED],
        "" if exact else "closed windows within the range",
    )


def counts_of(counts: Mapping[K, Count]) -> dict[K, Count]:
    """Leave the amounts out."""
    return {key: Count(count.n) for key, count in counts.items()}


def _lines(forgotten: Mapping[str, Count]) -> dict[WindowKey, Count]:
    return {WindowKey(tenant, "*", 0): one for tenant, one in forgotten.items()}


def _together(windows: Windows, tenants: Collection[str], *, keep: bool) -> dict[WindowKey, Count]:
    """Put all windows of some tenants into one, or leave them out."""
    made: dict[WindowKey, Count] = {}
    for key, count in windows.items():
        if key.tenant not in tenants:
            made[key] = count
        elif keep:
            place = WindowKey(key.tenant, "*", 0)
            made[place] = made.get(place, Count()).plus(count)
    return made


def _one_tenant(windows: Windows) -> dict[WindowKey, Count]:
    made: dict[WindowKey, Count] = {}
    for key, count in windows.items():
        place = WindowKey("*", key.kind, key.start_us)
        made[place] = made.get(place, Count()).plus(count)
    return made


def _sum(counts: Mapping[WindowKey, Count] | Mapping[str, Count]) -> Count:
    made = Count()
    for count in counts.values():
        made = made.plus(count)
    return made


def _line(key: WindowKey, left: Windows, right: Windows) -> str:
    a, b = left.get(key, Count()), right.get(key, Count())
    start = dt.datetime.fromtimestamp(key.start_us / 1e6, dt.UTC).isoformat()
    return (
        f"{key.tenant} {key.kind} window {start}: {a.n} events (amount {a.amount}) stored, "
        f"{b.n} (amount {b.amount}) in the window"
    )
