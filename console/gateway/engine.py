"""chDB behind a bounded set of connections: one statement at a time on each, settings and database per statement."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import chdb

from console.gateway.catalogue import VIEW, Catalogue, Row, catalogue
from console.gateway.statements import Statement, without_format
from steersman.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PARAMETER = re.compile(r"\{\s*\w+\s*:[^{}]+\}")
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


MAX_READ = 1 << 20
"""Longest statement of a reader; unit: bytes."""
_CATALOGUE = """
SELECT t.database, t.name, t.engine, countIf(c.name = 'tenant'), t.as_select FROM system.tables AS t
LEFT JOIN system.columns AS c ON c.database = t.database AND c.table = t.name
WHERE t.database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema') GROUP BY 1, 2, 3, 5
"""


@dataclass(frozen=True)
class Result:
    """Outcome of a statement: the counters of ClickHouse's summary header (rows, bytes, nanoseconds), and the body, in a file when it was to be."""

    body: bytes
    summary: dict[str, str]
    file: IO[bytes] | None = None


class _Handle:
    """A chDB connection, with the database and settings it currently has; a sealed one keeps them for good."""

    def __init__(self, path: str):
        self.connection: Any = chdb.connect(path)  # type: ignore[no-untyped-call]
        self.connection.query("SET implicit_select = 0")  # as on a server: `1` alone is no statement
        self.database = "default"
        self.settings: dict[str, str] = {}
        self.sealed = False

    def fits(self, query: Query) -> bool:
        """Whether a query may run on it."""
        return not self.sealed or (
            query.sealed and self.database == query.database and self.settings == dict(query.settings)
        )

    def seal(self) -> None:
        """Let nothing be written or set any more; there is no way back."""
        if not self.sealed:
            self.connection.query("SET readonly = 1")
            self.sealed = True

    def prepare(self, database: str, settings: Mapping[str, str]) -> None:
        if self.sealed:
            return
        if database != self.database:
            self.connection.query(f"USE `{_escape(database, '`')}`")
            self.database = database
        if settings != self.settings:
            changes = [f"{name} = DEFAULT" for name in self.settings if name not in settings]
            changes += [
                f"{name} = '{_escape(value, chr(39))}'"
                for name, value in settings.items()
                if self.settings.get(name) != value
            ]
            self.connection.query("SET " + ", ".join(changes))
            self.settings = dict(settings)


class _Pool:
    """Connections that statements share, one at a time each; made when first needed."""

    def __init__(self, path: str, size: int):
        self._path = path
        self._free: list[_Handle | None] = [None] * size
        self._size = size
        self._changed = threading.Condition()

    def take(self, query: Query) -> _Handle:
        """Return a connection on which a query may run: one that fits if there is one, a new one otherwise."""
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            fits = [i for i, one in enumerate(self._free) if one is not None and one.fits(query)]
            new = [i for i, one in enumerate(self._free) if one is None]
            handle = self._free.pop((fits[-1:] or new[-1:] or [0])[0])
        try:
            if handle is not None and not handle.fits(query):
                handle.connection.close()
                handle = None
            return handle or _Handle(self._path)
        except BaseException:
            self.give(None)
            raise

    def give(self, handle: _Handle | None) -> None:
        """Take a connection back; None for one that was closed."""
        with self._changed:
            self._free.append(handle)
            self._changed.notify()

    def close(self) -> None:
        """Wait for what runs, and close all of them."""
        for _ in range(self._size):
            with self._changed:
                self._changed.wait_for(lambda: self._free)
                handle = self._free.pop()
            if handle is not None:
                handle.connection.close()


class Engine:
    """ClickHouse in this process.

    Parameters
    ----------
    path
        Data folder; created when missing.
    handles
        Statements that may run at the same time: so many sealed ones, and so many others, so that neither waits for the other.

    Raises
    ------
    ConfigError
        When the folder cannot be opened, as a rule because another process has it open.
    """

    def __init__(self, path: Path, handles: int = 4):
        path.mkdir(parents=True, exist_ok=True)
        self._path = str(path.resolve())
        self._spool = path.resolve() / "inserts"
        try:
            # Stays open for good: with the last connection the whole engine would go down.
            self._anchor: Any = chdb.connect(self._path)  # type: ignore[no-untyped-call]
        except RuntimeError as e:
            raise ConfigError(
                f"chDB cannot open {path}: {_message(e)}; another process may have it open (one process per folder), "
                "stop it or choose another --path"
            ) from e
        shutil.rmtree(self._spool, ignore_errors=True)  # of a process that was killed
        self._spool.mkdir()
        self._pool, self._sealed = _Pool(self._path, handles), _Pool(self._path, handles)
        self._asking = threading.Lock()
        self._anchor.query(f"SET max_query_size = {4 * MAX_READ}")
        self._definitions = 0  # counts what may have changed tables and views: they change here or nowhere
        self._catalogue: tuple[int, Catalogue] = (-1, {})
        self.version = self._ask("SELECT version()")[0][0]
        self.table_functions = frozenset(
            name.lower() for (name,) in self._ask("SELECT name FROM system.table_functions")
        )

    def catalogue(self) -> Catalogue:
        """Return the tables and views there are."""
        at, found = self._definitions, self._catalogue
        if found[0] != at:
            rows = [
                Row(database, name, engine, tenants != "0", self._tree(select) if engine == VIEW else "")
                for database, name, engine, tenants, select in self._ask(_CATALOGUE)
            ]
            found = self._catalogue = (at, catalogue(rows))
        return found[1]

    def canonical(self, sql: bytes) -> bytes:
        """Return a statement as ClickHouse's own parser writes it down: one statement, without comments, quoted in one way.

        Raises
        ------
        SqlError
            It is none, or more than one.
        """
        if len(sql) > MAX_READ:
            raise SqlError(
                62, f"Code: 62. DB::Exception: a reader's statement may have {MAX_READ} bytes (SYNTAX_ERROR)"
            )
        try:
            return self._ask(f"SELECT formatQuerySingleLine(unhex('{sql.hex()}'))")[0][0].encode()
        except SqlError as e:
            text = e.text.partition(": In scope SELECT formatQuery")[0]
            raise SqlError(62, text if text.endswith(")") else f"{text} (SYNTAX_ERROR)") from e

    def _tree(self, select: str) -> str:
        """Return the syntax tree of what a view selects; what is no tree where it has none, and then it is nothing for tenants."""
        try:
            return "\n".join(line for (line,) in self._ask(f"EXPLAIN AST {_PARAMETER.sub('NULL', select)}"))
        except SqlError:
            return "?"

    def _ask(self, sql: str) -> list[list[str]]:
        try:
            with self._asking:
                done = self._anchor.query(sql, "JSONCompactStringsEachRow")
                text = bytes(done.bytes() or b"").decode()
        except RuntimeError as e:
            raise _sql_error(e) from e
        return [json.loads(line) for line in text.splitlines()]

    def run(self, query: Query) -> Result:
        """Run one statement; safe to call from several threads.

        Raises
        ------
        SqlError
            What ClickHouse said.
        """
        for name in query.settings:
            if not _NAME.match(name):
                raise SqlError(115, f"Code: 115. DB::Exception: Unknown setting {name!r}. (UNKNOWN_SETTING)")
        pool = self._sealed if query.sealed else self._pool
        try:
            handle = pool.take(query)
        except RuntimeError as e:
            raise _sql_error(e) from e
        known = False  # whether the connection is in a state the next statement may find it in
        try:
            handle.prepare(query.database, query.settings)
            if query.sealed:
                handle.seal()
                if query.check is not None and query.judged is not None:
                    tree = _explained(handle.connection, query.judged, query.parameters)
                    known = True
                    query.check(tree)
                    known = False  # what a failing statement has written by then would stand before the next result
            result = _run(handle.connection, query, self._spool)
            # Without sessions, what a statement sets ends with it; and read-only mode cannot be left again.
            known = query.sealed or (query.statement.verb not in ("SET", "USE") and "readonly" not in query.settings)
            return result
        except RuntimeError as e:
            raise _sql_error(e) from e
        finally:
            if query.statement.defines:
                self._definitions += 1
            if not known:
                handle.connection.close()
            pool.give(handle if known else None)

    def close(self) -> None:
        """Wait for the statements that run, then close the data folder."""
        self._pool.close()
        self._sealed.close()
        self._anchor.close()


def _explained(connection: Any, judged: bytes, parameters: Mapping[str, str]) -> str:
    """Return the syntax tree of a query as ClickHouse prints it."""
    done = connection.query(f"EXPLAIN AST {judged.decode()}", "TSVRaw", params=dict(parameters))
    return bytes(done.bytes() or b"").decode("utf-8", "replace")


def _run(connection: Any, query: Query, spool: Path) -> Result:
    statement = query.statement
    if statement.insert_format is not None:
        return _insert(connection, query, statement.insert_format, spool)
    if query.to_file and (result := _to_file(connection, query, spool)) is not None:
        return result
    sql = statement.sql.decode()
    done = connection.query(sql, query.default_format, params=dict(query.parameters))
    writes = not statement.reads
    rows, size = done.rows_read(), done.bytes_read()
    body = done.bytes() or b""
    return Result(
        body,
        _summary(
            rows if writes else 0,
            size if writes else 0,
            0 if writes else done.storage_rows_read(),
            0 if writes else done.storage_bytes_read(),
            done.elapsed(),
            0 if writes else rows,
            len(body),
        ),
    )


def _to_file(connection: Any, query: Query, spool: Path) -> Result | None:
    """Run a query whose result goes to a file, which nobody else can open; None for an empty result: no file is made of it."""
    statement = query.statement
    select, result_format = without_format(statement.sql)[0].decode(), statement.result_format or query.default_format
    path = spool / f"result-{uuid.uuid4().hex}"
    try:
        sql = (
            f"INSERT INTO FUNCTION file('{_escape(str(path), chr(39))}', '{_escape(result_format, chr(39))}') {select}"
        )
        done = connection.query(sql, "Null", params=dict(query.parameters))
        if not path.exists():
            return None
        file = path.open("rb")
    finally:
        path.unlink(missing_ok=True)
    rows, size = done.rows_written(), os.fstat(file.fileno()).st_size
    return Result(b"", _summary(0, 0, rows, done.bytes_written(), done.elapsed(), rows, size), file)


def _insert(connection: Any, query: Query, insert_format: str, spool: Path) -> Result:
    """Insert inline data by way of a file.

    chDB's own streaming insert (`send_insert`) would save the file, but it reports success when the write fails (too many
    parts, a violated constraint; chDB 4.4.0): rows would be lost without a word.
    """
    statement = query.statement
    with tempfile.NamedTemporaryFile(dir=spool) as file:
        file.write(statement.data)
        file.flush()
        sql = f"{statement.sql.decode()} FROM INFILE '{_escape(file.name, chr(39))}' "
        sql += f"{statement.insert_settings.decode()} FORMAT {insert_format}"
        done = connection.query(sql, "Null", params=dict(query.parameters))
    return Result(b"", _summary(done.rows_written(), done.bytes_written(), 0, 0, done.elapsed()))


def _summary(
    written: int,
    written_bytes: int,
    read: int,
    read_bytes: int,
    elapsed_s: float,
    rows: int = 0,
    size: int = 0,
) -> dict[str, str]:
    values = {
        "read_rows": read, "read_bytes": read_bytes, "written_rows": written, "written_bytes": written_bytes,
        "total_rows_to_read": read, "result_rows": rows, "result_bytes": size, "elapsed_ns": int(elapsed_s * 1e9),
    }  # fmt: skip
    return {name: str(value) for name, value in values.items()}


def _sql_error(error: RuntimeError) -> SqlError:
    text = _message(error)
    found = _CODE.search(text)
    if found is None:
        return SqlError(1002, f"Code: 1002. DB::Exception: {text} (UNKNOWN_EXCEPTION)")
    return SqlError(int(found.group(1)), text)


def _message(error: BaseException) -> str:
    text = str(error).strip()
    start = text.find("Code: ")
    return text[start:] if start > 0 else text


def _escape(text: str, quote: str) -> str:
    return text.replace("\\", "\\\\").replace(quote, "\\" + quote)
