"""Numbered, forward-only SQL files, applied one statement at a time and never changed once released."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steersman.errors import ConfigError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

FOLDER = Path(__file__).with_name("migrations")
_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql\Z")
_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    version UInt32,
    name String,
    checksum FixedString(64),
    applied_at DateTime64(6, 'UTC')
)
ENGINE = MergeTree ORDER BY version
SETTINGS non_replicated_deduplication_window = 1000
"""


@dataclass(frozen=True)
class Migration:
    """One file: its number, name, statements in order, and the SHA-256 of its text (64 hex digits)."""

    version: int
    name: str
    statements: tuple[str, ...]
    checksum: str


def load(folder: Path = FOLDER) -> list[Migration]:
    """Read the migrations of a folder, in order.

    Raises
    ------
    ConfigError
        A name is not `NNNN_name.sql`, or the numbers are not 1, 2, 3, ...
    """
    migrations = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.match(path.name)
        if match is None:
            raise ConfigError(f"{path}: a migration is called NNNN_name.sql")
        text = path.read_text(encoding="utf-8")
        checksum = hashlib.sha256(text.encode()).hexdigest()
        migrations.append(Migration(int(match.group(1)), match.group(2), split(text), checksum))
    if [m.version for m in migrations] != list(range(1, len(migrations) + 1)):
        raise ConfigError(f"{folder}: migrations must be numbered 0001, 0002, ... without gaps")
    return migrations


def split(text: str) -> tuple[str, ...]:
    """Split a file into statements: each ends with a semicolon at the end of a line; comment lines are dropped."""
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return tuple(s for part in re.split(r";[ \t]*(?:\n|\Z)", code) if (s := part.strip()))


def migrate(
    client: Client,
    dry_run: bool = False,
    *,
    migrations: Sequence[Migration] | None = None,
    ahead: bool = False,
) -> list[Migration]:
    """Bring a database to the current schema.

    Every statement is written so that it can be repeated (IF NOT EXISTS, OR REPLACE): a migration that was interrupted
    is simply run again.

    Parameters
    ----------
    client
        Connected to the database.
    dry_run
        Only say what would be applied.
    migrations
        What to apply; those of this package by default.
    ahead
        Whether the database may be ahead of this code. Migrations only add, so a sink of the last release goes on while
        the next one is rolled out.

    Returns
    -------
    list of Migration
        What was (or would be) applied; empty when there was nothing to do.

    Raises
    ------
    ConfigError
        An applied migration's text has changed since, or the database is ahead of this code.
    """
    wanted = load() if migrations is None else list(migrations)
    applied = _applied(client)
    for migration in wanted:
        checksum = applied.get(migration.version)
        if checksum is not None and checksum != migration.checksum:
            raise ConfigError(
                f"migration {migration.version:04}_{migration.name} was changed after it had been applied "
                f"(recorded {checksum[:12]}, now {migration.checksum[:12]}): restore it, and put the change into a new one"
            )
    unknown = sorted(applied.keys() - {m.version for m in wanted})
    if unknown and not ahead:
        raise ConfigError(
            f"the database has migrations {unknown} that this version does not know: upgrade steersman first"
        )
    pending = [m for m in wanted if m.version not in applied]
    if dry_run:
        return pending
    client.command(_LEDGER)
    for migration in pending:
        for statement in migration.statements:
            client.command(statement)
        client.command(
            "INSERT INTO schema_migrations SELECT {version:UInt32}, {name:String}, {checksum:String}, now64(6, 'UTC')",
            parameters={"version": migration.version, "name": migration.name, "checksum": migration.checksum},
        )
    return pending


def _applied(client: Client) -> dict[int, str]:
    if not client.command("EXISTS TABLE schema_migrations"):
        return {}
    rows = client.query("SELECT version, toString(checksum) FROM schema_migrations").result_rows
    return {int(version): str(checksum) for version, checksum in rows}
