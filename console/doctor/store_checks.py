"""Checks of ClickHouse: is it there, new enough, migrated, with room on its disks, and of the same time as we are."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from clickhouse_connect.driver.exceptions import ClickHouseError

from console.doctor.finding import Finding, fine, problem, warning
from console.doctor.kafka_checks import skew
from console.doctor.machine_checks import room
from console.status import TABLES
from sinks.clickhouse import connect
from sinks.migrations import migrate
from steersman.errors import ConfigError, Unreachable

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

MIN_VERSION = (25, 8)
"""Oldest server that our client supports."""
MAX_PARTS = 300
"""Active parts of a table from which on inserts soon wait (`parts_to_delay_insert` is 1000 by default)."""

UNANSWERED_MINUTES = 2
"""An act that no learner has answered for so long is a finding."""


def store_checks(url: str, min_free_bytes: int) -> Iterator[Finding]:
    """Look at a ClickHouse.

    Parameters
    ----------
    url
        As for `sinks.clickhouse.connect`.
    min_free_bytes
        Least room on a disk; unit: bytes.
    """
    try:
        client = connect(url, timeout_s=10)
    except ConfigError as error:
        yield problem("clickhouse.address", str(error), "correct --clickhouse or STEERSMAN_CLICKHOUSE_URL")
        return
    except Unreachable as error:
        yield problem("clickhouse.reachable", f"{error.what} does not answer", error.hint)
        return
    with contextlib.closing(client):
        try:
            yield from _version(client)
            yield from _migrations(client)
            yield from _parts(client)
            yield from _clock(client)
            yield from _disks(client, min_free_bytes)
            yield from _acts(client)
        except ClickHouseError as error:
            first = str(error).partition("\n")[0][:200]
            yield problem(
                "clickhouse.query", f"a query is refused: {first}", "look at the rights of this user (GRANT SELECT)"
            )


def _version(client: Client) -> Iterator[Finding]:
    text = str(client.query("SELECT version()").result_rows[0][0])
    numbers = tuple(int(n) for n in re.findall(r"\d+", text)[:2])
    if numbers < MIN_VERSION:
        wanted = ".".join(map(str, MIN_VERSION))
        yield problem(
            "clickhouse.version", f"ClickHouse {text} is older than {wanted}", f"upgrade it to {wanted} or newer"
        )
    else:
        yield fine("clickhouse.version", f"ClickHouse {text}")


def _migrations(client: Client) -> Iterator[Finding]:
    try:
        pending = migrate(client, dry_run=True)
    except ConfigError as error:
        fix = "run the doctor of the version that is deployed" if "does not know" in str(error) else "restore the file"
        yield problem("clickhouse.migrations", str(error), fix)
        return
    if pending:
        names = ", ".join(f"{one.version:04}_{one.name}" for one in pending)
        yield problem("clickhouse.migrations", f"not applied: {names}", "steersman migrate")
        return
    there = {
        str(row[0])
        for row in client.query("SELECT name FROM system.tables WHERE database = currentDatabase()").result_rows
    }
    if missing := [name for name in TABLES if name not in there]:
        yield problem(
            "clickhouse.tables",
            f"the migrations are on record as applied, but tables are gone: {', '.join(missing)}",
            "restore them from a backup, or empty schema_migrations and run 'steersman migrate' (all of it can be repeated)",
        )
    else:
        yield fine("clickhouse.migrations", "every migration is applied, every table there")


def _parts(client: Client) -> Iterator[Finding]:
    query = (
        "SELECT table, max(parts) FROM (SELECT table, partition, count() AS parts FROM system.parts WHERE active AND "
        "database = currentDatabase() GROUP BY table, partition) GROUP BY table HAVING max(parts) > {most:UInt32}"
    )
    for table, parts in client.query(query, parameters={"most": MAX_PARTS}).result_rows:
        yield warning(
            "clickhouse.parts",
            f"a partition of {table} has {parts} parts: merges do not keep up, and inserts will be delayed",
            "raise STEERSMAN_SINK_FLUSH_S or STEERSMAN_SINK_FLUSH_ROWS, or give ClickHouse more CPU and disk",
        )


def _clock(client: Client) -> Iterator[Finding]:
    before = time.time()
    theirs = client.query("SELECT toUnixTimestamp64Micro(now64(6))").result_rows[0][0] / 1e6
    yield skew("clock.clickhouse", "ClickHouse's clock", theirs, before, time.time())


def _disks(client: Client, min_free_bytes: int) -> Iterator[Finding]:
    for name, free, total in client.query("SELECT name, free_space, total_space FROM system.disks").result_rows:
        if 0 < total < 1 << 60:  # object stores say "without end"
            yield room("disk.clickhouse", f"disk {name} of ClickHouse", free, total, min_free_bytes)


def _acts(client: Client) -> Iterator[Finding]:
    """Acts of operators that no learner has answered."""
    if not client.command("EXISTS VIEW v_policy_acts"):
        return
    query = (
        "SELECT tenant || '/' || policy, lower(act), who, asked_at FROM v_policy_acts "
        "WHERE outcome = 'ASKED' AND asked_at < now64(3) - INTERVAL {minutes:UInt32} MINUTE ORDER BY asked_at LIMIT 20"
    )
    for policy, act, who, asked_at in client.query(query, parameters={"minutes": UNANSWERED_MINUTES}).result_rows:
        yield problem(
            "policy.acts",
            f"{act} of {policy}, asked for by {who} at {asked_at:%Y-%m-%d %H:%M} UTC, was never answered by a learner",
            "start a worker with the stage learn, and see that the policy is in its policies file",
        )
