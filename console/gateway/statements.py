"""Just enough of ClickHouse's grammar to route a statement: what it is, and where its inline data begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

_TOKEN = re.compile(
    rb"\s+|--[^\n]*|#[! ][^\n]*"
    rb"|'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`|\"(?:[^\"\\]|\\.|\"\")*\""
    rb"|\$(?P<tag>[A-Za-z0-9_]*)\$.*?\$(?P=tag)\$|\xe2\x80\x98.*?\xe2\x80\x99|\xe2\x80\x9c.*?\xe2\x80\x9d"
    rb"|[A-Za-z_][A-Za-z0-9_]*|\d[\w.]*|.",
    re.S,
)
_COMMENT = re.compile(rb"/\*|\*/")
_TRAILING_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*(?:SETTINGS\s+[^()';]*)?;?\s*$", re.I)
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
    def defines(self) -> bool:
        """True when it may change what tables and views there are."""
        return not self.reads and self.verb not in ("INSERT", "SET", "USE", "OPTIMIZE", "")


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
    for match in tokens(query):
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


def parse_in_two(text: bytes, body: bytes) -> Statement:
    """Take a statement apart that is in the URL, or in the body, or begins in the one and goes on in the other."""
    if text and body:
        begun = parse(text + b"\n")
        if begun.insert_format is not None and not begun.data:
            return replace(begun, data=body)  # as below, without two copies of what may be many megabytes
    return parse(text + b"\n" + body if text and body else text or body)


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
    return any(match.group().upper() in _FILES for match in tokens(sql))


def tokens(sql: bytes) -> Iterator[re.Match[bytes]]:
    """Take a statement apart as ClickHouse's lexer does; comments that may hold others (`/* /* */ */`) are left out."""
    at = 0
    while at < len(sql):
        if sql.startswith(b"/*", at):
            at = _comment_end(sql, at)
            continue
        match = _TOKEN.match(sql, at)
        if match is None:  # an empty rest
            return
        yield match
        at = match.end()


def _comment_end(sql: bytes, start: int) -> int:
    depth = 0
    for mark in _COMMENT.finditer(sql, start):
        depth += 1 if mark.group() == b"/*" else -1
        if depth == 0:
            return mark.end()
    return len(sql)


def without_format(sql: bytes) -> tuple[bytes, str | None]:
    """Take FORMAT and the name behind it out of a query, and a semicolon at its end.

    Returns
    -------
    bytes, str or None
        The query, and the name of the format; None when it names none.
    """
    depth, at, name, settings = 0, 0, None, False
    found: tuple[int, int, str] | None = None
    end = len(sql)
    for match in tokens(sql):
        token = match.group()
        if token.isspace() or token.startswith((b"--", b"#!", b"# ")):
            continue
        depth += (token in b"([{") - (token in b")]}")
        if found is not None and not settings and token != b";":
            settings = token.upper() == b"SETTINGS"
            found = found if settings else None  # a column of that name, when anything else follows
        if name == "FORMAT" and re.fullmatch(rb"\w+", token):
            found = at, match.end(), token.decode()
        name, at = (
            (token.upper().decode(), match.start()) if depth == 0 and token[:1].isalpha() else ("", match.start())
        )
        end = match.start() if token == b";" else match.end()
    if found is None:
        return sql[:end], None
    return sql[: found[0]] + b" " + sql[found[1] : max(end, found[1])], found[2]
