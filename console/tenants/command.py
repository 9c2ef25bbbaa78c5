"""`steersman tenants sql`: roles, quotas, settings profiles and row policies for a ClickHouse server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.gateway.users import Limits
from console.output import print_json
from console.tenants.statements import Quota, platform, script, tenant, without
from serving.access import read_tokens
from serving.private_file import refuse_public
from steersman.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Keep tenants apart on a ClickHouse server.")


@app.callback()
def _root() -> None:
    """Keep tenants apart on a ClickHouse server."""


@app.command(
    "sql",
    epilog="Examples: steersman tenants sql acme globex --database steersman | clickhouse-client --multiquery · "
    "steersman tenants sql acme --passwords readers.txt · steersman tenants sql acme --drop",
)
def sql(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[TENANT]...", help="Tenants, as events name them.")
    ] = None,
    database: Annotated[str, typer.Option(help="Database of the tables.")] = "steersman",
    passwords: Annotated[
        Path | None,
        typer.Option(
            help="File of '<tenant> <password>' lines: a user for each of the tenants; mode 0600. Only hashes are printed."
        ),
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Queries of a user in an hour.")] = Quota.queries,
    seconds: Annotated[int, typer.Option(min=1, help="Longest time of a query.")] = Limits.max_execution_time,
    drop: Annotated[bool, typer.Option("--drop", help="Take the tenants' access away instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Print the SQL that lets each tenant read its own rows and nothing else; it can be run again at any time.

    Run it as a user who may manage access. Without tenants it prints the roles of sink, migrations and analysts alone. chDB, the
    local stack's ClickHouse, has no roles: there, users of one tenant are kept apart by the endpoint (docs/clickhouse-endpoint.md).
    """
    wanted = list(dict.fromkeys(names or ()))
    limits, quota = Limits(max_execution_time=seconds), Quota(queries=queries)
    known: dict[str, str] = {}
    if passwords is not None:
        refuse_public(passwords, "passwords")
        known = {who: password for password, who in read_tokens(passwords).items()}
        if missing := sorted(set(wanted) - known.keys()):
            raise ConfigError(f"{passwords} has no password for {', '.join(missing)}")
    if drop:
        if not wanted:
            raise ConfigError("name the tenants whose access is to go")
        parts = {f"Tenant {who!r} goes.": without(who, database) for who in wanted}
    else:
        parts = {"Roles of the platform.": platform(database, limits, quota)}
        parts |= {f"Tenant {who!r}.": tenant(who, database, limits, quota, known.get(who)) for who in wanted}
    statements = [statement for part in parts.values() for statement in part]
    if as_json:
        print_json({"statements": statements})
    else:
        typer.echo(script(statements, {part[0]: head for head, part in parts.items()}), nl=False)
