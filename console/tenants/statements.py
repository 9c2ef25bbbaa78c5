"""Roles, settings profiles, quotas and row policies of a ClickHouse server, as SQL. Pure.

============================  ======================================================================================
role
============================  ======================================================================================
``steersman_writer``          the sink: inserts into the tables, deletes totals of traces
``steersman_migrator``        ``python -m sinks migrate``: makes and alters tables and views
``steersman_analyst``         reads tables and views, every tenant's rows
``steersman_tenant_<name>``   reads the same, the rows of this tenant only
============================  ======================================================================================

Views run with the rights of whoever asks (``SQL SECURITY INVOKER``, the server's default for views), so that reading one takes
the right to read the tables below it, and so that row policies hold there. The tenant's policies are restrictive: whatever
else the user may have, rows of others stay out. Beside them a permissive policy lets everybody read, since on a server with
``users_without_row_policies_can_read_rows`` switched off nobody else could. A policy never asks a setting, which its
user could change, and none of these users may write: a policy does not keep rows of others from being inserted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from console.gateway.users import Limits
from sinks.relations import Relations, relations
from steersman.errors import ConfigError

PREFIX = "steersman"
MAX_TENANT = 128
"""Longest name of a tenant, as in the contracts; unit: characters."""
_MIGRATOR = (
    "SELECT, INSERT, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, ALTER, TRUNCATE, OPTIMIZE"
)


@dataclass(frozen=True)
class Quota:
    """What a reader may use up in an hour.

    Attributes
    ----------
    queries, errors
        Statements, and those that failed.
    read_rows
        Rows read from tables.
    execution_time
        Unit: seconds.
    """

    queries: int = 1000
    errors: int = 200
    read_rows: int = 50_000_000_000
    execution_time: int = 3600


def platform(
    database: str, limits: Limits | None = None, quota: Quota | None = None, there: Relations | None = None
) -> list[str]:
    """Return the statements that every deployment needs once; all of them can be repeated.

    Parameters
    ----------
    database
        Where the tables are.
    limits
        Of a reader's statement.
    quota
        Of an analyst.
    there
        Tables and views; those of the migrations by default.
    """
    there = there or relations()
    limits = limits or Limits()
    writer, migrator, analyst = (name(f"{PREFIX}_{role}") for role in ("writer", "migrator", "analyst"))
    made = [f"CREATE ROLE IF NOT EXISTS {role}" for role in (writer, migrator, analyst)]
    made.append(_profile(limits, analyst))
    made += [f"GRANT INSERT ON {_of(database, table)} TO {writer}" for table in there.tables]
    made += [f"GRANT SELECT ON {_of(database, table)} TO {writer}" for table in (*there.tables, *there.others)]
    # What it folded of a trace that is being forgotten, it takes back (sinks/fold.py).
    made += [f"GRANT ALTER DELETE ON {_of(database, t)} TO {writer}" for t in there.tables if t == "trace_totals"]
    made.append(f"GRANT {_MIGRATOR} ON {name(database)}.* TO {migrator}")
    made += [f"GRANT SELECT ON {_of(database, one)} TO {analyst}" for one in (*there.tables, *there.views)]
    made += [
        f"CREATE ROW POLICY OR REPLACE {name(f'{PREFIX}_everybody')} ON {_of(database, table)} USING 1 AS PERMISSIVE TO ALL"
        for table in there.tables
    ]
    made.append(_quota(f"{PREFIX}_analyst", quota or Quota(), analyst))
    return made


def tenant(
    who: str,
    database: str,
    limits: Limits | None = None,
    quota: Quota | None = None,
    password: str | None = None,
    there: Relations | None = None,
) -> list[str]:
    """Return the statements for a tenant; all of them can be repeated.

    Parameters
    ----------
    who
        The tenant, as its events name it.
    database
        Where the tables are.
    limits
        Of one statement.
    quota
        Of each of its users.
    password
        Of a user of the same name as the role, which is made when there is one; only its SHA-256 is part of the SQL.
    there
        Tables and views; those of the migrations by default.

    Raises
    ------
    ConfigError
        That is no name of a tenant.
    """
    there = there or relations()
    plain = _role(who)
    role = name(plain)
    made = [f"CREATE ROLE IF NOT EXISTS {role}", _profile(limits or Limits(), role, plain)]
    made += [
        f"CREATE ROW POLICY OR REPLACE {role} ON {_of(database, table)} USING tenant = {literal(who)} AS RESTRICTIVE TO {role}"
        for table in there.tables
    ]
    made.append(_quota(plain, quota or Quota(), role))
    # Last: nothing can be read before it is known whose it is.
    made += [f"GRANT SELECT ON {_of(database, one)} TO {role}" for one in (*there.tables, *there.views)]
    if password is not None:
        digest = hashlib.sha256(password.encode()).hexdigest()
        made.append(f"CREATE USER OR REPLACE {role} IDENTIFIED WITH sha256_hash BY '{digest}'")
        made.append(f"GRANT {role} TO {role}")
        made.append(f"SET DEFAULT ROLE {role} TO {role}")
    return made


def without(who: str, database: str, there: Relations | None = None) -> list[str]:
    """Return the statements that take a tenant's access away, in the order in which nothing is open in between."""
    role = name(_role(who))
    made = [f"DROP USER IF EXISTS {role}", f"DROP ROLE IF EXISTS {role}", f"DROP QUOTA IF EXISTS {role}"]
    made.append(f"DROP SETTINGS PROFILE IF EXISTS {role}")
    tables = (there or relations()).tables
    return [*made, *(f"DROP ROW POLICY IF EXISTS {role} ON {_of(database, table)}" for table in tables)]


def script(statements: Iterable[str], heads: Mapping[str, str] | None = None) -> str:
    """Return statements as a file for ``clickhouse-client --multiquery``; `heads` are comments, by the statement they precede."""
    lines = []
    for statement in statements:
        if heads and (head := heads.get(statement)):
            lines.append(f"\n-- {head}")
        lines.append(f"{statement};")
    return "\n".join(lines).strip() + "\n"


def name(text: str) -> str:
    """Quote an identifier."""
    return "`" + text.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    """Quote a text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _of(database: str, relation: str) -> str:
    return f"{name(database)}.{name(relation)}"


def _role(who: str) -> str:
    if not 1 <= len(who) <= MAX_TENANT or not who.isprintable() or who != who.strip():
        raise ConfigError(
            f"{who[:MAX_TENANT]!r} is no name of a tenant: 1 to {MAX_TENANT} printable characters, no blanks around them"
        )
    return f"{PREFIX}_tenant_{who}"


def _profile(limits: Limits, role: str, plain: str = f"{PREFIX}_analyst") -> str:
    """Reading only, within limits. Grafana's plugin sets max_execution_time with every query, so that one may be lowered."""
    return (
        f"CREATE SETTINGS PROFILE OR REPLACE {name(plain)} SETTINGS readonly = 1, "
        f"max_execution_time = {limits.max_execution_time} MIN 1 MAX {limits.max_execution_time} CHANGEABLE_IN_READONLY, "
        f"max_memory_usage = {limits.max_memory_usage}, max_rows_to_read = {limits.max_rows_to_read}, "
        f"max_bytes_to_read = {limits.max_bytes_to_read}, max_result_rows = {limits.max_result_rows}, "
        f"max_result_bytes = {limits.max_result_bytes} TO {role}"
    )


def _quota(plain: str, quota: Quota, role: str) -> str:
    return (
        f"CREATE QUOTA OR REPLACE {name(plain)} KEYED BY user_name FOR INTERVAL 1 hour MAX queries = {quota.queries}, "
        f"errors = {quota.errors}, read_rows = {quota.read_rows}, execution_time = {quota.execution_time} TO {role}"
    )
