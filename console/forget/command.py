"""The command: asks, deletes, and says what stays where and how long."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated, Any

import typer

from console.forget.retire import Retired, retire
from console.output import err, out, print_json, print_rows
from console.stack import require_broker
from console.target import Target, registry_of, resolve
from sinks.clickhouse import connect, shown
from sinks.forget import USER_KEYS, Forgotten, Subject
from sinks.forget import forget as delete
from steersman.errors import ConfigError, SteersmanError
from steersman.topics import Topics
from streams.settings import StreamSettings

STAYS = (
    "Kafka keeps records until they expire, and nothing can take single ones out: trace events 7 days, rewards, alerts and windows 30, "
    "dead letters 14, the ledger 30 (unless the topics are set otherwise). State of traces goes by itself an hour after their last event. "
    "A sink that reads the topics again stores them again: run this once more after that. Backups are yours."
)


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
    if user is None and session is None and tenant is None:
        raise ConfigError("say whom to forget: --user, --session, or --tenant alone for all of a tenant")
    whole = user is None and session is None
    name = tenant or os.environ.get("STEERSMAN_TENANT") or "default"
    subject = Subject(name, user, session, (*USER_KEYS, *(user_key or ())))
    target = resolve(brokers, clickhouse)
    if whole and kafka:
        require_broker(target.brokers)
    if not (dry_run or yes):
        _confirm(subject)
    with contextlib.closing(connect(target.clickhouse, timeout_s=3600)) as client:
        if not client.command("EXISTS TABLE forgotten_places"):
            raise SteersmanError(
                f"the tables at {shown(target.clickhouse)} are of before this version: 'steersman migrate' first"
            )
        found = delete(client, subject, dry_run=dry_run, say=lambda step: err.print(f"{step} ...", highlight=False))
    retired = _retire(target, name, dry_run) if whole and kafka else []
    _show(subject, found, retired, dry_run, as_json)
    if sum(found.after.values()):
        raise SteersmanError("rows about them were stored meanwhile: run it again")


def _confirm(subject: Subject) -> None:
    what = {
        "tenant": f"everything of tenant {subject.tenant}",
        "user": f"everything about that user of tenant {subject.tenant}",
        "session": f"that session of tenant {subject.tenant}",
    }[subject.scope]
    if not sys.stdin.isatty():
        raise ConfigError(f"this would delete {what} for good: say --yes, or --dry-run to see what")
    typer.confirm(f"Delete {what} for good?", abort=True, err=True)


def _retire(target: Target, tenant: str, dry_run: bool) -> list[Retired]:
    settings, topics = StreamSettings(), Topics(target.prefix)
    key = settings.policy_signing_key
    return retire(target.brokers, topics, tenant, key, registry=registry_of(topics), dry_run=dry_run)


def _show(subject: Subject, found: Forgotten, retired: list[Retired], dry_run: bool, as_json: bool) -> None:
    if as_json:
        record: dict[str, Any] = {
            "dry_run": dry_run,
            "request": found.request,
            "scope": found.scope,
            "tenant": subject.tenant,
            "traces": found.traces,
            "before": found.before,
            "after": found.after,
            "policies": {one.policy: one.done for one in retired},
        }
        print_json(record)
        return
    rows = [(table, n, found.after.get(table)) for table, n in sorted(found.before.items())]
    print_rows(["table", "rows", "left"], rows, as_json=False)
    for one in retired:
        out.print(f"policy {one.policy}: {'would be ' if dry_run and one.done in ('retired', 'tombstone') else ''}{one.done}", markup=False, highlight=False)  # fmt: skip
    total = sum(found.before.values())
    said = (
        f"dry run: {total} rows of {found.traces} traces would go"
        if dry_run
        else f"{total} rows of {found.traces} traces are gone"
    )
    out.print(f"{said} (request {found.request}; audit: SELECT * FROM v_forgotten)", markup=False, highlight=False)
    out.print(STAYS, markup=False, highlight=False)
