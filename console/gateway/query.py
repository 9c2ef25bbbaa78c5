"""A statement with all that it depends on, what comes of it, and what ClickHouse says instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO

from console.gateway.statements import Statement

_CODE = re.compile(r"Code: (\d+)\.")


class SqlError(Exception):
    """What ClickHouse said about a statement.

    Attributes
    ----------
    code
        ClickHouse's error code.
    text
        Message as ClickHouse's HTTP interface words it: `Code: 60. DB::Exception: ... (UNKNOWN_TABLE)`.
    """

    def __init__(self, code: int, text: str):
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True)
class Query:
    """One statement with everything it depends on.

    Attributes
    ----------
    statement
        What to run.
    database
        Database of unqualified names.
    settings
        ClickHouse settings of this statement alone.
    parameters
        Values of its `{name:Type}` placeholders, as text.
    default_format
        Format of the result when the statement names none.
    to_file
        Whether the result is to be complete before any of it is sent, and may be large.
    sealed
        Whether it may only read, with no setting changed: ClickHouse's ``readonly = 1``.
    check, judged
        Of a sealed query: raises when it may not run, given what ``EXPLAIN AST`` says of this text, which is the statement or the
        query within it; None to run it unseen.
    """

    statement: Statement
    database: str = "default"
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    default_format: str = "TabSeparated"
    to_file: bool = False
    sealed: bool = False
    check: Callable[[str], None] | None = None
    judged: bytes | None = None


@dataclass(frozen=True)
class Result:
    """Outcome of a statement: the counters of ClickHouse's summary header (rows, bytes, nanoseconds), and the body, in a file when it was to be."""

    body: bytes
    summary: dict[str, str]
    file: IO[bytes] | None = None


def sql_error(error: RuntimeError) -> SqlError:
    """Return what chDB raised as what ClickHouse says."""
    text = message_of(error)
    found = _CODE.search(text)
    if found is None:
        return SqlError(1002, f"Code: 1002. DB::Exception: {text} (UNKNOWN_EXCEPTION)")
    return SqlError(int(found.group(1)), text)


def message_of(error: BaseException) -> str:
    """Return what chDB raised without the words before ClickHouse's."""
    text = str(error).strip()
    start = text.find("Code: ")
    return text[start:] if start > 0 else text


def escape(text: str, quote: str) -> str:
    """Return a text as it stands between two quotes of a statement."""
    return text.replace("\\", "\\\\").replace(quote, "\\" + quote)
