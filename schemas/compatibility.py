"""Proof that two versions of a contract read each other's records: by rule, and on generated data.

FULL_TRANSITIVE in the words of a schema registry: producers and consumers of any two versions meet on a
topic whose retention outlives releases, so the newer must read the older and the older the newer.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping
from typing import Any

import fastavro

from schemas.lint import Finding

RECORDS = 200
"""Generated records per direction and pair of versions; unit: count."""

_NOTES = frozenset({"doc", "default", "aliases"})
_RANGES = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}


def compare(contract: str, new: Mapping[str, Any], old: Mapping[str, Any], label: str) -> list[Finding]:
    """Check that two versions are compatible in both directions.

    Parameters
    ----------
    contract
        Name of the contract.
    new, old
        The two versions as parsed JSON; both have passed `schemas.lint.lint`.
    label
        What to call the old version in messages.

    Returns
    -------
    list of Finding
        Broken rules first; only when there are none is data generated, written with either version and read
        with the other, shared fields compared and missing ones looked for their defaults.
    """
    found = [Finding(contract, where, rule, f"{what} ({label})") for where, rule, what in _rules(new, old, "")]
    if not found:
        count = RECORDS if new != old else RECORDS // 10
        for writer, reader, way in ((old, new, "backward"), (new, old, "forward")):
            wrong = disagreements(writer, reader, count)
            found += [Finding(contract, "data", way, f"{what} ({label})") for what in wrong]
    return found


def disagreements(writer: Mapping[str, Any], reader: Mapping[str, Any], count: int = RECORDS) -> list[str]:
    """Write generated records with one schema, read them with another, and say what came out wrong.

    Parameters
    ----------
    writer, reader
        Schemas as parsed JSON.
    count
        Records to generate; unit: count.

    Returns
    -------
    list of str
        At most one message: the first disagreement.
    """
    rng = random.Random(20260)  # noqa: S311  (reproducible data, no secret)
    written, wanted = fastavro.parse_schema(_plain(writer)), fastavro.parse_schema(_plain(reader))
    for turn in range(count):
        record = generate(writer, rng, turn)
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, written, record)
        buffer.seek(0)
        try:
            read = fastavro.schemaless_reader(buffer, written, wanted)
        except Exception as error:  # any failure to read is the finding
            return [f"not readable: {type(error).__name__}: {error}"]
        expected = resolve(record, writer, reader)
        if buffer.tell() != len(buffer.getbuffer()) or read != expected:
            wrong = [key for key in expected if read.get(key) != expected[key]] if isinstance(read, dict) else []
            return [f"record {turn} reads differently: {', '.join(wrong)}"]
    return []


def generate(node: Any, rng: random.Random, turn: int) -> Any:
    """Generate a value of a type: branches and symbols in turn, integers at and between their limits."""
    if isinstance(node, list):
        return generate(node[(turn + rng.randrange(len(node))) % len(node)], rng, turn)
    if isinstance(node, Mapping):
        kind = node["type"]
        if kind == "record":
            return {field["name"]: generate(field["type"], rng, turn) for field in node["fields"]}
        if kind == "enum":
            return node["symbols"][turn % len(node["symbols"])]
        if kind == "array":
            return [generate(node["items"], rng, turn + i) for i in range(rng.randrange(4))]
        if kind == "map":
            return {str(i): generate(node["values"], rng, turn + i) for i in range(rng.randrange(4))}
        if kind == "fixed":
            return rng.randbytes(node["size"])
        return generate(kind, rng, turn)
    if node in _RANGES:
        low, high = _RANGES[node]
        return rng.choice((low, -1, 0, 1, high, rng.randint(low, high)))
    if node in ("float", "double"):
        return rng.choice((0.0, -1.5, 2.0**100, rng.randrange(-999, 999) / 8))
    plain = {"null": None, "boolean": rng.random() < 0.5, "bytes": rng.randbytes(rng.randrange(9))}
    return plain.get(node, "".join(rng.choices("aZ0 =;\u00e9\u4e2d\U0001f6f6", k=rng.randrange(9))))


def resolve(value: Any, writer: Any, reader: Any) -> Any:
    """Say what a reader must make of a value: defaults for what was not written, the unknown dropped."""
    if isinstance(writer, list) and isinstance(reader, list):
        if value is None:
            return None
        return resolve(value, _branch(writer), _branch(reader))
    if not isinstance(writer, Mapping) or not isinstance(reader, Mapping):
        return value
    if reader["type"] == "record":
        theirs = {field["name"]: field["type"] for field in writer["fields"]}
        return {
            field["name"]: (
                resolve(value[field["name"]], theirs[field["name"]], field["type"])
                if field["name"] in theirs
                else field["default"]
            )
            for field in reader["fields"]
        }
    if reader["type"] == "enum":
        return value if value in reader["symbols"] else reader["default"]
    if reader["type"] == "array":
        return [resolve(item, writer["items"], reader["items"]) for item in value]
    return value


def _rules(new: Any, old: Any, where: str) -> Iterator[tuple[str, str, str]]:
    """Broken rules of two types in the same place, as (where, rule, what is wrong and what to do)."""
    here = where or "record"
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        for newer, older in zip(new, old, strict=True):
            yield from _rules(newer, older, where)
    elif isinstance(new, Mapping) and isinstance(old, Mapping) and new.get("type") == old.get("type"):
        if new.get("name") != old.get("name") or new.get("namespace") != old.get("namespace"):
            yield here, "renamed", f"type {old.get('name')} became {new.get('name')}; names are for ever"
        if new["type"] == "record":
            yield from _fields(new, old, where)
        elif new["type"] != "enum":
            parts = (_notes_off(new), _notes_off(old))
            inner = "items" if new["type"] == "array" else "values"
            if {**parts[0], inner: 0} != {**parts[1], inner: 0}:
                yield here, "type", "type changed; add a new field instead"
            yield from _rules(new.get(inner), old.get(inner), where)
    elif new != old:
        yield here, "type", f"type {_brief(old)} became {_brief(new)}; add a new field instead"


def _fields(new: Mapping[str, Any], old: Mapping[str, Any], where: str) -> Iterator[tuple[str, str, str]]:
    newer = {field["name"]: field for field in new["fields"]}
    older = {field["name"]: field for field in old["fields"]}
    dot = f"{where}." if where else "field "
    for name, field in newer.items():
        if name in older:
            yield from _rules(field["type"], older[name]["type"], dot + name)
        elif "default" not in field:
            yield (
                dot + name,
                "no_default",
                "field is new and has no default, so records without it cannot be read",
            )
        elif where and (isinstance(field["default"], list | dict) or field["type"] == "bytes"):
            yield dot + name, "shared_default", "a new field inside a nested record needs a scalar default"
    for name, field in older.items():
        if name not in newer and "default" not in field:
            yield dot + name, "removed", "field had no default, so older readers need it; keep it"


def _branch(union: list[Any]) -> Any:
    return next((branch for branch in union if branch != "null"), "null")


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if isinstance(node, Mapping):
        return {key: _plain(item) for key, item in node.items() if key != "logicalType"}
    return node


def _notes_off(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in node.items() if key not in _NOTES}


def _brief(node: Any) -> str:
    return str(node.get("type")) if isinstance(node, Mapping) else str(node)
