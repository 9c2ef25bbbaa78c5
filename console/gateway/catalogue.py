"""The tables and views there are, and which of them can show a tenant its own rows alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from console.gateway.outside import INNOCENT
from console.gateway.tree import Named, named

VIEW = "View"


@dataclass(frozen=True)
class Relation:
    """A table or a view.

    Attributes
    ----------
    engine
        Its engine.
    has_tenant
        Whether it has a column ``tenant``.
    for_tenants
        Whether a filter on every column ``tenant`` leaves of it what one tenant may see: of a table, that it has the column; of a view, that
        all it reads is of that kind.
    """

    engine: str
    has_tenant: bool
    for_tenants: bool


Catalogue = Mapping[str, Mapping[str, Relation]]
"""Database -> name -> table or view; without the system's own databases."""


@dataclass(frozen=True)
class Row:
    """What ClickHouse says of a table or a view; `tree` is the syntax tree of what a view selects."""

    database: str
    name: str
    engine: str
    has_tenant: bool
    tree: str


def catalogue(rows: Iterable[Row]) -> Catalogue:
    """Put together what there is."""
    known = {(row.database, row.name): row for row in rows}
    reads = {place: named(row.tree) for place, row in known.items() if row.engine == VIEW}
    made: dict[str, dict[str, Relation]] = {}
    for (database, name), row in known.items():
        safe = _for_tenants((database, name), known, reads, frozenset())
        made.setdefault(database, {})[name] = Relation(row.engine, row.has_tenant, safe)
    return made


def _for_tenants(
    place: tuple[str, str],
    known: Mapping[tuple[str, str], Row],
    reads: Mapping[tuple[str, str], Named],
    above: frozenset[tuple[str, str]],
) -> bool:
    row = known.get(place)
    if row is None or place in above:
        return False
    if row.engine != VIEW:
        return row.has_tenant
    found = reads[place]

    def safe(name: str) -> bool:
        head, dot, rest = name.partition(".")
        return _for_tenants((head, rest) if dot else (place[0], name), known, reads, above | {place})

    def given(name: str) -> bool:
        """Whether the view itself names so what it reads (WITH): then it hides no table of that name."""
        return "." not in name and (place[0], name) not in known

    tables = all(given(name) or safe(name) for name in found.tables)
    return tables and not found.odd and all(name.lower() in INNOCENT or safe(name) for name in found.table_functions)
