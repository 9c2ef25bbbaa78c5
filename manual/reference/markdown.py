"""Pieces of Markdown that the reference pages are made of."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence


def cell(text: object) -> str:
    """Return text for a cell of a table: one line, with nothing that ends the cell or looks like HTML."""
    line = " ".join(str(text).split())
    parts = re.split(r"(`[^`]*`)", line)
    safe = (part if part.startswith("`") else part.replace("<", "&lt;").replace("*", "\\*") for part in parts)
    return "".join(safe).replace("|", "\\|")


def code(text: object) -> str:
    """Return text as code, or nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(cell(value) for value in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def from_rst(docstring: str) -> str:
    """Return the prose of a docstring as Markdown: code blocks fenced, literals and references in single backticks."""
    text = re.sub(r"``(.*?)``|`([^`]+)`", lambda m: f"`{m.group(1) or m.group(2)}`", textwrap.dedent(docstring))
    out: list[str] = []
    lines = iter([*text.splitlines(), None])
    line = next(lines)
    while line is not None:
        block = re.match(r"\.\. code-block:: (\w+)", line)
        if block is None:
            out.append(line)
            line = next(lines)
            continue
        body: list[str] = []
        while (line := next(lines)) is not None and (not line.strip() or line.startswith("    ")):
            body.append(line[4:])
        out += [f"```{block.group(1)}", *"\n".join(body).strip("\n").splitlines(), "```", ""]
    return "\n".join(out).strip() + "\n"
