"""What commands print: tables for people, one JSON object (or one a line) for programs.

Names, comments and errors come from agents and their users. In a terminal such text could move the cursor, change the window's
title or write into the clipboard (ECMA-48 control sequences), and in rich's tables it could be markup: it is neither here.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# C0 but line feed and tab, DEL, C1, and the marks that turn the direction of text (Unicode UAX 9).
_CONTROL = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (
        *range(9),
        *range(11, 32),
        *range(0x7F, 0xA0),
        0x200E,
        0x200F,
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
    )
}


def visible(text: str) -> str:
    """Return a text with every control character as its escape: ``\\x1b``."""
    return text.translate(_CONTROL)


class _Terminal(Console):
    """A console that sends no control character of a text on."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


# Pipes have no width: tables go there unfolded.
out = _Terminal(width=None if sys.stdout.isatty() else 200)
err = _Terminal(stderr=True)


def plain(value: Any) -> Any:
    """Return a JSON-ready form of a value from ClickHouse or Avro."""
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, int | float | str | bool) or value is None:
        return value
    return str(value)


def print_json(value: Any) -> None:
    """Print one JSON document on one line."""
    sys.stdout.write(json.dumps(plain(value), allow_nan=False) + "\n")
    sys.stdout.flush()


def print_rows(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, as_json: bool, title: str | None = None
) -> None:
    """Print rows as a table, or as one JSON object a line."""
    if as_json:
        for row in rows:
            print_json(dict(zip(columns, row, strict=True)))
        return
    if title:
        out.print(title, highlight=False)
    table = Table(header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(v) for v in row))
    out.print(table)


def _cell(value: Any) -> Text:
    if isinstance(value, float):
        return Text(f"{value:,.6g}")
    if isinstance(value, bytes):
        return Text(value.hex())
    return Text("" if value is None else visible(str(value)))
