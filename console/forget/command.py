"""`steersman forget`: the command; what it does is in `console.forget.deletion`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from console.target import resolve
from sinks.forget import USER_KEYS, Subject
from steersman.errors import ConfigError


def forget(
    tenant: Annotated[
        str | None,
        typer.Option(
            help="Tenant. Alone: everything of it goes. With --user or --session: whose they are, else STEERSMAN_TENANT or 'default'."
        ),
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="A user, as events name them (or the pseudonym that redaction made of the name).")
    ] = None,
    session: Annotated[
        str | None, typer.Option(help="One session. With --user: that session of the user's, and nothing else.")
    ] = None,
    user_key: Annotated[
        list[str] | None,
        typer.Option(help=f"Further attribute that names users; repeat it. Always: {', '.join(USER_KEYS)}."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    kafka: Annotated[
        bool, typer.Option("--kafka/--no-kafka", help="Also retire the policies of a tenant on the policy topic.")
    ] = True,
    brokers: Annotated[str | None, typer.Option(help="Kafka bootstrap servers, e.g. 127.0.0.1:9092.")] = None,
    clickhouse: Annotated[str | None, typer.Option(help="ClickHouse URL, e.g. http://user:password@host:8123.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")] = False,
) -> None:
    """Delete what is stored about a tenant, a user or a session, from every table and for good; an audit row stays that names nobody."""
    from console.forget.deletion import run

    if user is None and session is None and tenant is None:
        raise ConfigError("say whom to forget: --user, --session, or --tenant alone for all of a tenant")
    whole = user is None and session is None
    name = tenant or os.environ.get("STEERSMAN_TENANT") or "default"
    subject = Subject(name, user, session, (*USER_KEYS, *(user_key or ())))
    target = resolve(brokers, clickhouse)
    run(target, subject, kafka=whole and kafka, dry_run=dry_run, yes=yes, as_json=as_json)
