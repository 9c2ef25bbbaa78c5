"""chDB behind a bounded set of connections: one statement at a time on each, settings and database per statement."""

from __future__ import annotations

import json
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import chdb

from console.gateway.catalogue import VIEW, Catalogue, Row, catalogue
from console.gateway.execution import explained, run
from console.gateway.handles import Pool
from console.gateway.query import Query, Result, SqlError, message_of, sql_error
from steersman.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PARAMETER = re.compile(r"\{\s*\w+\s*:[^{}]+\}")
MAX_READ = 1 << 20
"""Longest statement of a reader; unit: bytes."""
_CATALOGUE = """
SELECT t.database, t.name, t.engine, countIf(c.name = 'tenant'), t.as_select FROM system.tables AS t
LEFT JOIN system.columns AS c ON c.database = t.database AND c.table = t.name
WHERE t.database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema') GROUP BY 1, 2, 3, 5
"""


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
                f"chDB cannot open {path}: {message_of(e)}; another process may have it open (one process per folder), "
                "stop it or choose another --path"
            ) from e
        shutil.rmtree(self._spool, ignore_errors=True)  # of a process that was killed
        self._spool.mkdir()
        self._pool, self._sealed = Pool(self._path, handles), Pool(self._path, handles)
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
            raise sql_error(e) from e
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
            raise sql_error(e) from e
        known = False  # whether the connection is in a state the next statement may find it in
        try:
            handle.prepare(query.database, query.settings)
            if query.sealed:
                handle.seal()
                if query.check is not None and query.judged is not None:
                    tree = explained(handle.connection, query.judged, query.parameters)
                    known = True
                    query.check(tree)
                    known = False  # what a failing statement has written by then would stand before the next result
            result = run(handle.connection, query, self._spool)
            # Without sessions, what a statement sets ends with it; and read-only mode cannot be left again.
            known = query.sealed or (query.statement.verb not in ("SET", "USE") and "readonly" not in query.settings)
            return result
        except RuntimeError as e:
            raise sql_error(e) from e
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
