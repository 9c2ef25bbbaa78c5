"""Which line of a TOML text holds which key: what `tomllib` does not keep and an error message needs."""

from __future__ import annotations

import re
from collections.abc import Mapping

KeyPath = tuple[str | int, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_KEY = rf"{_PART}(?:\s*\.\s*{_PART})*"
_TABLE = re.compile(rf"\s*(\[\[?)\s*({_KEY})\s*\]\]?")
_ASSIGN = re.compile(rf"\s*({_KEY})\s*=")
_INLINE = re.compile(rf"[{{,]\s*({_PART})\s*=")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Line number (from 1) of every table header, key and key of a one-line inline table.

    Array-of-tables elements carry their index. The text must be valid TOML; keys that only look like keys, inside
    multi-line strings, may appear too, which does no harm to a look-up of real ones unless they coincide.
    """
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = _TABLE.match(line)
        if header and "=" not in line.split("]")[0]:
            table = _resolve(_split(header[2]), counts)
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                lines.setdefault(table, number)
                table = (*table, counts[table])
            for length in range(1, len(table) + 1):  # [a.b] makes the table a, too
                lines.setdefault(table[:length], number)
            continue
        assign = _ASSIGN.match(line)
        if assign:
            path = (*table, *_split(assign[1]))
            lines.setdefault(path, number)
            for inner in _INLINE.finditer(line, assign.end()):
                lines.setdefault((*path, *_split(inner[1])), number)
    return lines


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """Line of the key, or of the nearest thing around it; 1 when nothing is known."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def _split(key: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in re.findall(_PART, key))


def _resolve(path: KeyPath, counts: Mapping[KeyPath, int]) -> KeyPath:
    """Put in the index of the current element wherever a prefix of the path is an array of tables (not the last step)."""
    out: KeyPath = ()
    for i, step in enumerate(path):
        out = (*out, step)
        if out in counts and i < len(path) - 1:
            out = (*out, counts[out])
    return out
