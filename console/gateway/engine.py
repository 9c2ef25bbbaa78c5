"""chDB behind a bounded set of connections: one statement at a time on each, settings and database per statement."""

from __future__ import annotations

import os
import queue
import re
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import chdb

from console.gateway.statements import Statement
from steersman.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
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
    """

    statement: Statement
    database: str = "default"
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    default_format: str = "TabSeparated"
    to_file: bool = False


@dataclass(frozen=True)
class Result:
    """Outcome of a statement: the counters of ClickHouse's summary header (rows, bytes, nanoseconds), and the body, in a file when it was to be."""

    body: bytes
    summary: dict[str, str]
    file: IO[bytes] | None = None


class _Handle:
    """A chDB connection, with the database and settings it currently has."""

    def __init__(self, path: str):
        self.connection: Any = chdb.connect(path)  # type: ignore[no-untyped-call]
        self.connection.query("SET implicit_select = 0")  # as on a server: `1` alone is no statement
        self.database = "default"
        self.settings: dict[str, str] = {}

    def prepare(self, database: str, settings: Mapping[str, str]) -> None:
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


class Engine:
    """ClickHouse in this process.

    Parameters
    ----------
    path
        Data folder; created when missing.
    handles
        Statements that may run at the same time.

    Raises
    ------
    ConfigError
        When the folder cannot be opened, as a rule because another process has it open.
    """

    def __init__(self, path: Path, handles: int = 4):
        path.mkdir(parents=True, exist_ok=True)
        self._path = str(path.resolve())
        self._spool = path.resolve() / "inserts"
        self._free: queue.LifoQueue[_Handle | None] = queue.LifoQueue()
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
        for _ in range(handles):
            self._free.put(None)
        self._handles = handles
        self.version = str(self._anchor.query("SELECT version()", "TSVRaw").bytes().decode().strip())

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
        handle = self._free.get()
        known = False  # whether the connection is in a state the next statement may find it in
        try:
            handle = handle or _Handle(self._path)
            handle.prepare(query.database, query.settings)
            result = _run(handle.connection, query, self._spool)
            # Without sessions, what a statement sets ends with it; and read-only mode cannot be left again.
            known = query.statement.verb not in ("SET", "USE") and "readonly" not in query.settings
            return result
        except RuntimeError as e:
            text = _message(e)
            found = _CODE.search(text)
            if found is None:
                raise SqlError(1002, f"Code: 1002. DB::Exception: {text} (UNKNOWN_EXCEPTION)") from e
            raise SqlError(int(found.group(1)), text) from e
        finally:
            if handle is not None and not known:
                handle.connection.close()
                handle = None
            self._free.put(handle)

    def close(self) -> None:
        """Wait for the statements that run, then close the data folder."""
        for _ in range(self._handles):
            handle = self._free.get()
            if handle is not None:
                handle.connection.close()
        self._anchor.close()


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
    select = statement.without_format.decode()
    result_format = statement.result_format or query.default_format
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


def _message(error: BaseException) -> str:
    text = str(error).strip()
    start = text.find("Code: ")
    return text[start:] if start > 0 else text


def _escape(text: str, quote: str) -> str:
    return text.replace("\\", "\\\\").replace(quote, "\\" + quote)
