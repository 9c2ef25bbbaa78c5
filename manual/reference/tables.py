"""The tables and views: what the migrations make of an empty ClickHouse."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from manual.reference.markdown import code, table
from sinks.clickhouse import connect
from sinks.migrations import FOLDER, migrate

_HEAD = """# Tables and views

The views `v_*` are the contract: their names and columns stay, and they read deduplicated. Times are UTC, `*_us` microseconds, `*_ms` milliseconds,
`*_micro_usd` millionths of a dollar. Ask with `steersman sql`, or with any ClickHouse client. `steersman migrate` brings a database up to date.
"""
_PARAMETERS = re.compile(r"\{(\w+):([^}]+)\}")


def page() -> str:
    """Return the page; starts a chDB of its own in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        client = connect(f"chdb://{folder}/data")
        try:
            migrate(client)
            relations = _rows(
                client,
                "SELECT name, engine, sorting_key, as_select, primary_key FROM system.tables "
                "WHERE database = currentDatabase() ORDER BY name LIKE 'v\\\\_%' DESC, name",
            )
            columns = _rows(
                client,
                "SELECT table, name, type FROM system.columns WHERE database = currentDatabase() ORDER BY table, position",
            )
        finally:
            client.close()
    comments = _comments()
    parts = [_HEAD]
    for relation in relations:
        name = relation["name"]
        parts += [f"## {name}", ""]
        if comments.get(name):
            parts += [comments[name], ""]
        asked = dict(_PARAMETERS.findall(relation["as_select"]))
        if asked:
            parts += ["Parameters: " + ", ".join(f"`{key} {kind}`" for key, kind in asked.items()) + ".", ""]
        if relation["sorting_key"]:
            parts += [f"{relation['engine']}, ordered by `{relation['sorting_key']}`.", ""]
        rows = [(code(c["name"]), code(c["type"])) for c in columns if c["table"] == name]
        if rows:
            parts.append(table(("column", "type"), rows))
    return "\n".join(parts)


def _rows(client: Any, query: str) -> list[dict[str, Any]]:
    return list(client.query(query).named_results())


def _comments() -> dict[str, str]:
    """Return what the migrations say right above each CREATE; of several, the last that says something."""
    found: dict[str, str] = {}
    for path in sorted(Path(FOLDER).glob("*.sql")):
        said: list[str] = []
        for line in path.read_text(encoding="utf-8").splitlines():
            made = re.match(r"CREATE (?:OR REPLACE )?(?:MATERIALIZED )?(?:TABLE|VIEW)(?: IF NOT EXISTS)? (\w+)", line)
            if line.startswith("--"):
                said.append(line[2:].strip())
            elif made:
                if said:
                    found[made.group(1)] = " ".join(said)
                said = []
            elif not line.strip():
                said = []
    return found
