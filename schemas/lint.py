"""Rules a contract must keep on its own, whatever came before it.

Each rule has a reason outside of taste: recursion crashes the decoder, items that take no bytes let five
bytes cost minutes, maps and nested records cannot be read by columns, an enum without a default breaks every
reader that is older than the symbol.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fastavro

MAX_DEPTH = 8
"""Deepest nesting of types; unit: levels."""
MAX_FIELDS = 500
"""Most fields, nested records included; unit: count."""
FLAT = frozenset({"trace_event"})
"""Contracts that must be flat, so that batches of them can be decoded by columns."""

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_UNIT = re.compile(r"\bunit: \S")


@dataclass(frozen=True)
class Finding:
    """One broken rule."""

    contract: str
    where: str
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.contract}: {self.where}: {self.message} [{self.rule}]"


def lint(contract: str, schema: Mapping[str, Any]) -> list[Finding]:
    """Check one schema against the rules.

    Parameters
    ----------
    contract
        Name of the contract; the ones in `FLAT` must be flat.
    schema
        The schema as parsed JSON.

    Returns
    -------
    list of Finding
        Empty when all rules hold.
    """
    walk = _Walk(contract, flat=contract in FLAT)
    found = list(walk.type_at(schema, "record", 0, ()))
    if walk.fields > MAX_FIELDS:
        found.append(walk.finding("record", "fields", f"{walk.fields} fields, {MAX_FIELDS} allowed"))
    if not found:
        # Only what passed the rules above is safe to hand to the parser (it follows recursion, for one).
        try:
            fastavro.parse_schema(dict(schema))
        except Exception as error:  # whatever the parser dislikes is a finding, not a crash of the gate
            found.append(walk.finding("record", "parse", f"{type(error).__name__}: {error}"))
    return found


class _Walk:
    def __init__(self, contract: str, *, flat: bool) -> None:
        self.contract = contract
        self.flat = flat
        self.fields = 0

    def finding(self, where: str, rule: str, message: str) -> Finding:
        return Finding(self.contract, where, rule, message)

    def type_at(self, node: Any, where: str, depth: int, around: tuple[str, ...]) -> Iterator[Finding]:
        """Findings of a type; `around` names the records that enclose it."""
        if depth > MAX_DEPTH:
            yield self.finding(where, "depth", f"nested deeper than {MAX_DEPTH} levels; flatten it")
        elif isinstance(node, list):
            for branch in node:
                yield from self.type_at(branch, where, depth + 1, around)
        elif isinstance(node, str):
            yield from self._name(node, where, around)
        elif not isinstance(node, Mapping):
            yield self.finding(where, "parse", f"{type(node).__name__} where a type should be")
        elif node.get("type") in ("array", "map"):
            yield from self._container(node, where, depth, around)
        elif node.get("type") == "record":
            yield from self._record(node, where, depth, around)
        elif node.get("type") == "enum":
            yield from self._enum(node, where)
        elif node.get("type") != "fixed":
            yield from self.type_at(node.get("type"), where, depth + 1, around)

    def _name(self, name: str, where: str, around: tuple[str, ...]) -> Iterator[Finding]:
        if name.rpartition(".")[2] in around:
            yield self.finding(where, "recursion", f"{name} contains itself: a few bytes would crash every reader")
        elif name not in PRIMITIVES:
            yield self.finding(where, "reference", f"{name} is no primitive type; write the type out in place")

    def _container(self, node: Mapping[str, Any], where: str, depth: int, around: tuple[str, ...]) -> Iterator[Finding]:
        kind = node["type"]
        items = node.get("items" if kind == "array" else "values")
        if kind == "map" and self.flat:
            yield self.finding(where, "map", "maps cannot be decoded by columns; use a JSON string or fields")
        if zero_width(items):
            yield self.finding(where, "zero_width", f"{kind} items that take no bytes: a count alone costs minutes")
        yield from self.type_at(items, where, depth + 1, around)

    def _record(self, node: Mapping[str, Any], where: str, depth: int, around: tuple[str, ...]) -> Iterator[Finding]:
        if self.flat and depth > 0:
            yield self.finding(where, "nested", "nested record in a flat contract; make its members fields")
        yield from self._documented(node, where)
        name = str(node.get("name", "")).rpartition(".")[2]
        for field in node.get("fields", ()):
            self.fields += 1
            here = f"field {field.get('name')}" if depth == 0 else f"{where}.{field.get('name')}"
            if not _UNIT.search(str(field.get("doc", ""))):
                yield self.finding(here, "unit", "doc must name the unit ('unit: ...', 'unit: none')")
            yield from self.type_at(field.get("type"), here, depth + 1, (*around, name))

    def _enum(self, node: Mapping[str, Any], where: str) -> Iterator[Finding]:
        yield from self._documented(node, where)
        if node.get("default") not in node.get("symbols", ()):
            yield self.finding(where, "enum_default", "enum needs a default symbol, for readers older than a symbol")

    def _documented(self, node: Mapping[str, Any], where: str) -> Iterator[Finding]:
        if not str(node.get("doc", "")).strip():
            yield self.finding(where, "doc", f"{node.get('type')} {node.get('name')} has no doc")


def zero_width(node: Any) -> bool:
    """Tell whether values of a type take no bytes: null, fixed(0), records of nothing but those."""
    if not isinstance(node, Mapping):
        return bool(node == "null")
    kind = node.get("type")
    if kind == "record":
        return all(zero_width(field.get("type")) for field in node.get("fields", ()))
    if kind == "fixed":
        return node.get("size") == 0
    return kind not in ("enum", "array", "map") and zero_width(kind)
