"""Just enough of ClickHouse's grammar to route a statement: what it is, and where its inline data begins."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"\s+|--[^\n]*|#[! ][^\n]*|/\*.*?\*/"
    rb"|'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`|\"(?:[^\"\\]|\\.|\"\")*\""
    rb"|[A-Za-z_][A-Za-z0-9_]*|\d[\w.]*|.",
    re.S,
)
_TRAILING_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*(?:SETTINGS\s+[^()';]*)?;?\s*$", re.I)
_FORMAT_AT_END = re.compile(rb"\bFORMAT\s+\w+\s*;?\s*$", re.I)
_READS = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS", "VALUES", "CHECK", "FROM"})
_FILES = (b"INFILE", b"OUTFILE")


@dataclass(frozen=True)
class Statement:
    """A statement, taken apart as far as serving it needs.

    Attributes
    ----------
    verb
        First keyword, upper case; empty for an empty statement.
    sql
        The statement; for an insert with inline data in a format, what comes before its SETTINGS and FORMAT clauses.
    insert_settings
        SETTINGS clause of such an insert, as written.
    insert_format
        Format of the inline data of an insert, None for any other statement.
    data
        That inline data.
    result_format
        Format the statement asks its result to be in, None when it does not say.
    uses_files
        True when it names a file on this machine (INFILE or OUTFILE).
    """

    verb: str
    sql: bytes
    insert_settings: bytes = b""
    insert_format: str | None = None
    data: bytes = b""
    result_format: str | None = None
    uses_files: bool = False

    @property
    def reads(self) -> bool:
        """True when the statement returns a result and changes nothing."""
        return self.verb in _READS or self.sql.lstrip()[:1] == b"("

    @property
    def without_format(self) -> bytes:
        """The statement without the FORMAT clause at its end; with SETTINGS behind that, as it is."""
        found = _FORMAT_AT_END.search(self.sql)
        return self.sql[: found.start()] if found else self.sql


def parse(query: bytes) -> Statement:
    """Take a statement apart.

    Parameters
    ----------
    query
        The statement, an insert's inline data included.
    """
    verb = ""
    depth = 0
    settings = 0
    for match in _TOKEN.finditer(query):
        token = match.group()
        if token in b"([{":
            depth += 1
        elif token in b")]}":
            depth -= 1
        if not token[:1].isalpha():
            continue
        word = token.upper()
        if not verb:
            verb = word.decode()
            if verb != "INSERT":
                break
        elif depth == 0 and word in (b"VALUES", b"SELECT", b"WITH"):
            break
        elif depth == 0 and word == b"SETTINGS":
            settings = match.start()
        elif depth == 0 and word == b"FORMAT":
            return _inline(query, settings or match.start(), match.start(), match.end())
    uses_files = any(name in query.upper() for name in _FILES) and _names_files(query)
    trailing = _TRAILING_FORMAT.search(query[-400:])
    return Statement(verb, query, result_format=trailing.group(1).decode() if trailing else None, uses_files=uses_files)


def _inline(query: bytes, settings: int, start: int, end: int) -> Statement:
    """Split an insert at its clauses: the data begins after the format's name, blanks and one line break."""
    found = re.compile(rb"\s+(\w+)[ \t;]*(?:\r?\n)?").match(query, end)
    if found is None:
        return Statement("INSERT", query)
    return Statement(
        "INSERT",
        query[:settings],
        insert_settings=query[settings:start],
        insert_format=found.group(1).decode(),
        data=query[found.end() :],
        uses_files=_names_files(query[:start]),
    )


def _names_files(sql: bytes) -> bool:
    return any(match.group().upper() in _FILES for match in _TOKEN.finditer(sql))
