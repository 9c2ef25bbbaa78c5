"""The Avro contracts: every field with its type, default and meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from manual.reference.markdown import code, table

FOLDER = Path(__file__).resolve().parents[2] / "schemas"
_HEAD = """# Avro contracts

What is on the topics. With a registry, records have Confluent's framing (a zero byte and a schema id), without one Avro's single-object encoding
(`C3 01` and a fingerprint); readers take both. A contract changes only so that old and new read each other's records
(FULL_TRANSITIVE; `python -m schemas.gate`).
"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for path in sorted(FOLDER.glob("*.avsc")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        parts += _record(schema, f"## {path.stem}")
    return "\n".join(parts)


def _record(schema: dict[str, Any], heading: str) -> list[str]:
    inner: list[dict[str, Any]] = []
    rows = [
        (
            code(field["name"]),
            _type(field["type"], inner),
            code(json.dumps(field["default"])) if "default" in field else "",
            field.get("doc", ""),
        )
        for field in schema["fields"]
    ]
    parts = [heading, "", f"`{schema.get('namespace', '')}.{schema['name']}`".replace("`.", "`"), ""]
    if schema.get("doc"):
        parts += [schema["doc"], ""]
    parts.append(table(("field", "type", "default", "says"), rows))
    for record in inner:
        parts += _record(record, f"### {record['name']}")
    return parts


def _type(kind: Any, inner: list[dict[str, Any]]) -> str:
    """Return a type in words; records met on the way are added to `inner`."""
    if isinstance(kind, str):
        return kind
    if isinstance(kind, list):
        return " or ".join(_type(branch, inner) for branch in kind)
    if kind["type"] == "record":
        inner.append(kind)
        return str(kind["name"])
    if kind["type"] == "enum":
        return f"{kind['name']}: {', '.join(kind['symbols'])}"
    if kind["type"] == "array":
        return f"array of {_type(kind['items'], inner)}"
    return str(kind.get("logicalType", kind["type"]))
