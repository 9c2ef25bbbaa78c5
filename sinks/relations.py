"""What the migrations leave behind: the tables and the views, and which of them say whose a row is. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sinks.migrations import Migration, load

_TABLE = re.compile(r"CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)\s*\((.*)", re.I | re.S)
_VIEW = re.compile(r"CREATE\s+(?:OR\s+REPLACE\s+)?VIEW\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)", re.I)
_DROP = re.compile(r"DROP\s+(?:TABLE|VIEW)\s+(?:IF\s+EXISTS\s+)?(\w+)", re.I)
_TENANT = re.compile(r"[(,]\s*tenant\s+(?:LowCardinality\(String\)|String\b)", re.I)


@dataclass(frozen=True)
class Relations:
    """Names, each in alphabetical order.

    Attributes
    ----------
    tables
        Tables whose rows say whose they are, in the column ``tenant``.
    others
        Tables without that column.
    views
        Views.
    """

    tables: tuple[str, ...]
    others: tuple[str, ...]
    views: tuple[str, ...]


def relations(migrations: Iterable[Migration] | None = None) -> Relations:
    """Return what there is once migrations have been applied.

    Parameters
    ----------
    migrations
        In order; those of this package by default.
    """
    found: dict[str, str] = {}
    for migration in load() if migrations is None else migrations:
        for statement in migration.statements:
            if table := _TABLE.match(statement):
                found[table[1]] = "tables" if _TENANT.search("(" + table[2]) else "others"
            elif view := _VIEW.match(statement):
                found[view[1]] = "views"
            elif gone := _DROP.match(statement):
                found.pop(gone[1], None)
    by_kind = {kind: tuple(sorted(n for n, k in found.items() if k == kind)) for kind in ("tables", "others", "views")}
    return Relations(**by_kind)
