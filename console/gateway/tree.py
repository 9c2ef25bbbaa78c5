"""What a query names, by the syntax tree that ClickHouse's parser makes of it (``EXPLAIN AST``). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NODE = re.compile(r" *([A-Za-z][A-Za-z0-9_:]*)(?: (.*?))?(?: \(alias .*\))?(?: \(children \d+\))?$")


@dataclass(frozen=True)
class Named:
    """The names in a query, each as often as it stands there.

    Attributes
    ----------
    tables
        Tables: ``name`` or ``database.name``; names that the query itself gives (WITH) among them.
    table_functions, functions
        Functions in the place of a table, and all others.
    identifiers
        Other names: columns as a rule, but what stands behind IN may be a table.
    sets
        SETTINGS clauses.
    odd
        Lines that are no node: parts of a name with a line feed in it.
    """

    tables: tuple[str, ...]
    table_functions: tuple[str, ...]
    functions: tuple[str, ...]
    identifiers: tuple[str, ...]
    sets: tuple[str, ...]
    odd: tuple[str, ...]


def named(tree: str) -> Named:
    """Return the names in a syntax tree.

    Parameters
    ----------
    tree
        What ``EXPLAIN AST`` says, a node a line.
    """
    found: dict[str, list[str]] = {
        kind: [] for kind in ("tables", "table_functions", "functions", "identifiers", "sets", "odd")
    }
    before = ""
    for line in tree.splitlines():
        node = _NODE.match(line)
        if node is None:
            found["odd"].append(line)
            continue
        kind, name = node[1], node[2] or ""
        if kind == "TableIdentifier":
            found["tables"].append(name)
        elif kind == "Function":
            found["table_functions" if before == "TableExpression" else "functions"].append(name)
        elif kind == "Set":
            found["sets"].append(name)
        elif kind == "Identifier":
            found["identifiers"].append(name)
        before = kind
    return Named(**{kind: tuple(names) for kind, names in found.items()})
