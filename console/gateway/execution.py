"""One statement on one connection: results in memory or in a file, and inserts by way of a file."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from console.gateway.query import Query, Result, escape
from console.gateway.statements import without_format


def explained(connection: Any, judged: bytes, parameters: Mapping[str, str]) -> str:
    """Return the syntax tree of a query as ClickHouse prints it."""
    done = connection.query(f"EXPLAIN AST {judged.decode()}", "TSVRaw", params=dict(parameters))
    return bytes(done.bytes() or b"").decode("utf-8", "replace")


def run(connection: Any, query: Query, spool: Path) -> Result:
    """Run a statement on a connection that was prepared for it; files are made in the folder `spool`. RuntimeError as chDB raises it."""
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
        sql = f"INSERT INTO FUNCTION file('{escape(str(path), chr(39))}', '{escape(result_format, chr(39))}') {select}"
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
        sql = f"{statement.sql.decode()} FROM INFILE '{escape(file.name, chr(39))}' "
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
