"""The numbers of the report, from what ClickHouse answered. Pure."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from console.report.front import Front, Value, front_of
from console.report.queries import Rows
from page.overview import shape
from page.store import Row

MEASURES = {"utility": ("", 1.0), "quality": ("", 1.0), "cost": ("USD", 1e-6), "latency": ("s", 1e-6)}
"""Unit of each measure, and the factor to it from what is stored."""
_Z = 1.96


@dataclass(frozen=True)
class Group:
    """Decisions of one kind; `means` by measure, without those of which nothing is known."""

    n: int
    means: Mapping[str, Value]
    explored: float | None


@dataclass(frozen=True)
class Change:
    """What the learned policy has more than the baseline.

    Attributes
    ----------
    difference : Value
        In the unit of the measure.
    share : Value or None
        The same as a share of the baseline's mean; None where that is not above 0.
    sure : bool
        Whether 0 lies outside the interval.
    """

    difference: Value
    share: Value | None
    sure: bool


@dataclass(frozen=True)
class PolicyFigures:
    """One policy.

    Attributes
    ----------
    name
        Without the tenant.
    shaped
        As `page.overview.shape` makes it: verdict, lines over time, shares of levels.
    bands
        By group the half widths of the utility's 95 % intervals, a number a bin.
    baseline, learned, late
        The control group, what the policy decided, and of that what it decided last.
    changes, late_changes
        By measure, against the baseline; without those that cannot be told.
    front
        The trade-off.
    """

    name: str
    shaped: Mapping[str, Any]
    bands: Mapping[str, Sequence[float | None]]
    baseline: Group
    learned: Group
    late: Group
    changes: Mapping[str, Change]
    late_changes: Mapping[str, Change]
    front: Front


@dataclass(frozen=True)
class Figures:
    """All of the report.

    Attributes
    ----------
    tenant
        Whose.
    since, until, made_at
        The time it is about, and when it was made.
    first, step
        Bins over time; unit: seconds since 1970, seconds.
    policies
        With the most decisions first.
    rows
        Alerts, dead letters, ledger, events and rewards as they came.
    """

    tenant: str
    since: dt.datetime
    until: dt.datetime
    made_at: dt.datetime
    first: int
    step: int
    policies: tuple[PolicyFigures, ...]
    rows: Rows


def figures_of(rows: Rows, tenant: str, now: dt.datetime) -> Figures:
    """Work out the numbers of the report."""
    policies = [row for row in rows.policies if row["policy"] in {group["policy"] for group in rows.groups}]
    names = {row["policy"] for row in policies} | {row["policy"] for row in rows.groups}
    series = [row for row in rows.series if row["policy"] in names]
    arms = [row for row in rows.arms if row["policy"] in names]
    shaped = shape(policies, series, arms, rows.first, rows.step, now)
    groups, of_series, taken = _by_policy(rows.groups), _by_policy(series), _by_policy(rows.taken)
    objectives = {row["policy"]: _terms(row["newest"]) for row in rows.objectives}
    made = [
        _policy(
            one["name"],
            one,
            groups[one["name"]],
            of_series[one["name"]],
            rows,
            taken[one["name"]],
            objectives.get(one["name"], []),
        )
        for one in shaped
    ]
    made.sort(key=lambda one: (-one.learned.n - one.baseline.n, one.name))
    return Figures(tenant, rows.since, rows.until, now, rows.first, rows.step, tuple(made), rows)


def _policy(
    name: str,
    shaped: Mapping[str, Any],
    groups: Sequence[Row],
    series: Sequence[Row],
    rows: Rows,
    taken: Sequence[Row],
    objective: Sequence[Mapping[str, object]],
) -> PolicyFigures:
    baseline = _group([row for row in groups if row["control"]])
    learned = _group([row for row in groups if not row["control"]])
    late = _group([row for row in groups if not row["control"] and row["late"]])
    bins = len(shaped["explored"])
    bands = {
        who: _band([row for row in series if bool(row["control"]) is control], rows.first, rows.step, bins)
        for who, control in (("learned", False), ("baseline", True))
    }
    return PolicyFigures(
        name,
        shaped,
        bands,
        baseline,
        learned,
        late,
        _changes(learned, baseline),
        _changes(late, baseline),
        front_of(taken, objective),
    )


def _by_policy(rows: Iterable[Row]) -> defaultdict[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["policy"]].append(row)
    return found


def _terms(text: str) -> list[Mapping[str, object]]:
    try:
        terms = json.loads(text)
    except ValueError:
        return []
    return [term for term in terms if isinstance(term, dict)] if isinstance(terms, list) else []


def _group(rows: Sequence[Row]) -> Group:
    n = sum(row["n"] for row in rows)
    means = {}
    for measure, (_, unit) in MEASURES.items():
        count, total, squares = (sum(row[f"{measure}_{part}"] for row in rows) for part in ("n", "sum", "squares"))
        if count > 1:
            variance = max(squares - total * total / count, 0.0) / (count - 1)
            means[measure] = Value(total / count * unit, _Z * math.sqrt(variance / count) * unit)
    return Group(n, means, sum(row["n_explored"] for row in rows) / n if n else None)


def _changes(learned: Group, baseline: Group) -> dict[str, Change]:
    found = {}
    for measure, mine in learned.means.items():
        base = baseline.means.get(measure)
        if base is None:
            continue
        difference = mine.mean - base.mean
        half = math.hypot(mine.half, base.half)
        share = None
        if base.mean > 0 and measure != "utility":
            ratio = mine.mean / base.mean
            share = Value(ratio - 1.0, math.hypot(mine.half, ratio * base.half) / base.mean)  # delta method
        found[measure] = Change(Value(difference, half), share, abs(difference) > half)
    return found


def _band(rows: Sequence[Row], first: int, step: int, bins: int) -> list[float | None]:
    band: list[float | None] = [None] * bins
    for row in rows:
        at, n = (row["t"] - first) // step, row["utility_n"]
        if 0 <= at < bins and n > 1:
            variance = max(row["utility_squares"] - row["utility"] ** 2 / n, 0.0) / (n - 1)
            band[at] = _Z * math.sqrt(variance / n)
    return band
