"""The Avro contracts: every record on every topic, in all its released versions.

The ``.avsc`` files live in ``schemas/`` of the repository and are copied into the wheel as
``steersman/avsc/``, so that a process can name the schema of any record ever written without asking a
service.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastavro.schema import fingerprint as _hex_fingerprint
from fastavro.schema import to_parsing_canonical_form

NAMES = ("trace_event", "reward", "rollup", "alert", "policy_snapshot", "ledger", "policy_act")
"""Names of the contracts, as the files are called."""

MAX_DEPTH = 8
"""Deepest nesting of a schema that is accepted from elsewhere; unit: levels."""

MAX_FIELDS = 500
"""Most fields of a schema that is accepted from elsewhere, nested records included; unit: count."""

_FLAT = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))


def folder() -> Path:
    """Folder that holds the ``.avsc`` files: in the installed package, or ``schemas/`` of a checkout."""
    here = Path(__file__).resolve().parent
    packaged = here / "avsc"
    return packaged if packaged.is_dir() else here.parent / "schemas"


@functools.cache
def schema(name: str) -> dict[str, Any]:
    """Return the current version of a contract as parsed JSON.

    Parameters
    ----------
    name
        One of `NAMES`.

    Returns
    -------
    dict
        The schema as written, docs and logical types included. Shared between callers: do not change it.

    Raises
    ------
    KeyError
        There is no contract of that name.
    """
    return _load(_known(name), folder() / f"{name}.avsc")


@functools.cache
def versions(name: str) -> list[dict[str, Any]]:
    """Return all released versions of a contract, oldest first.

    Parameters
    ----------
    name
        One of `NAMES`.

    Returns
    -------
    list of dict
        Version 1 first. Shared between callers: do not change it.

    Raises
    ------
    KeyError
        There is no contract of that name.
    """
    files = (folder() / "history" / _known(name)).glob("*.avsc")
    return [_load(name, file) for file in sorted(files, key=lambda file: int(file.stem))]


def fingerprint(schema: Mapping[str, Any] | str) -> bytes:
    """Return the CRC-64-AVRO fingerprint of a schema's parsing canonical form.

    Documentation, defaults and logical types are no part of that form, so versions that differ only in those
    share it: their records have the same bytes.

    Parameters
    ----------
    schema
        An Avro schema.

    Returns
    -------
    bytes
        8 bytes, little-endian, as the header of the single-object encoding wants them (Avro 1.12,
        "Single-object encoding" and "Schema fingerprints").
    """
    return _crc_64_avro(to_parsing_canonical_form(schema if isinstance(schema, str) else dict(schema)))


# A millisecond or two, byte by byte in Python, and each codec asks for all versions of its contract.
@functools.lru_cache(maxsize=128)
def _crc_64_avro(canonical: str) -> bytes:
    return bytes.fromhex(_hex_fingerprint(canonical, "CRC-64-AVRO"))


def digest(schema: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of a schema's parsing canonical form, 32 bytes: a name that nobody can forge."""
    return bytes.fromhex(_hex_fingerprint(to_parsing_canonical_form(dict(schema)), "sha256"))


def hazard(schema: Any) -> str | None:
    """Say why decoding under a schema from elsewhere could hurt this process, or None when it cannot.

    A few bytes under a hostile writer schema are enough to crash a decoder (recursion) or to keep it busy for
    minutes (arrays whose items take no bytes), so a schema that did not come with this package passes here
    first.

    Parameters
    ----------
    schema
        An Avro schema as parsed JSON; anything else is a hazard too.
    """
    fields = 0

    def walk(node: Any, depth: int) -> str | None:
        nonlocal fields
        if depth > MAX_DEPTH:
            return f"nested deeper than {MAX_DEPTH} levels"
        if isinstance(node, list):
            return next((found for branch in node if (found := walk(branch, depth + 1))), None)
        if isinstance(node, str):
            # Any other name refers to a type defined elsewhere in the schema, perhaps around this very place.
            return None if node in _FLAT else f"type {node!r} used by reference"
        if not isinstance(node, dict):
            return f"{type(node).__name__} where a type should be"
        kind = node.get("type")
        if kind in ("array", "map"):
            items = node.get("items" if kind == "array" else "values")
            if zero_width(items):
                return f"{kind} whose items take no bytes"
            return walk(items, depth + 1)
        if kind == "record":
            members = node.get("fields")
            if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
                return "record without a list of fields"
            fields += len(members)
            if fields > MAX_FIELDS:
                return f"more than {MAX_FIELDS} fields"
            return next((found for member in members if (found := walk(member.get("type"), depth + 1))), None)
        if kind in ("enum", "fixed"):
            return None
        return walk(kind, depth + 1)

    return walk(schema, 0)


def zero_width(node: Any) -> bool:
    """Tell whether values of an Avro type take no bytes: null, fixed(0), records of nothing but those."""
    if isinstance(node, dict):
        kind = node.get("type")
        if kind == "record":
            members = node.get("fields") or ()
            return all(zero_width(member.get("type")) for member in members if isinstance(member, dict))
        if kind == "fixed":
            return node.get("size") == 0
        return kind != "enum" and kind != "array" and kind != "map" and zero_width(kind)
    return bool(node == "null")


def _known(name: str) -> str:
    if name not in NAMES:
        raise KeyError(f"there is no contract {name!r}; known are {', '.join(NAMES)}")
    return name


def _load(name: str, file: Path) -> dict[str, Any]:
    loaded = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(loaded, dict):
        raise ValueError(f"contract {name}: {file} does not hold a record schema")
    return loaded
