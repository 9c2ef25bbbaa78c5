"""Asks, deletes, and says what stays where and how long."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import typer

from console.brokers import require_broker
from console.forget.retire import Retired, retire
from console.output import err, out, print_json, print_rows
from console.target import Target, registry_of
from sinks.clickhouse import connect, shown
from sinks.forget import Forgotten, Subject
from sinks.forget import forget as delete
from steersman.errors import ConfigError, SteersmanError
from steersman.topics import Topics
from streams.settings import StreamSettings

STAYS = (
    "Kafka keeps records until they expire, and nothing can take single ones out: trace events 7 days, rewards, alerts and windows 30, "
    "dead letters 14, the ledger 30 (unless the topics are set otherwise). State of traces goes by itself an hour after their last event. "
    "A sink that reads the topics again stores them again: run this once more after that. Backups are yours."
)


def run(target: Target, subject: Subject, *, kafka: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete what the tables hold about a subject, and with `kafka` retire the policies of its tenant.

    Raises
    ------
    SteersmanError
        When the tables are too old, or rows about the subject were stored meanwhile.
    """
    if kafka:
        require_broker(target.brokers)
    if not (dry_run or yes):
        _confirm(subject)
    with contextlib.closing(connect(target.clickhouse, timeout_s=3600)) as client:
        if not client.command("EXISTS TABLE forgotten_places"):
            raise SteersmanError(
                f"the tables at {shown(target.clickhouse)} are of before this version: 'steersman migrate' first"
            )
        found = delete(client, subject, dry_run=dry_run, say=lambda step: err.print(f"{step} ...", highlight=False))
    retired = _retire(target, subject.tenant, dry_run) if kafka else []
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
