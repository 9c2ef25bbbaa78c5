"""An insert is done, its reply is lost, the batch comes again: once in the tables, whatever else happens meanwhile."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import OperationalError

from sinks.batch import Rejected
from sinks.clickhouse import connect
from sinks.tables import Message, tables
from sinks.writer import Backoff, Writer
from steersman.topics import Topics
from tests.sinks.lossy import Lossy
from tests.sinks.records import VIEWS, value

TABLES = {table.name: table for table in tables(Topics())}
REPETITIONS = 500


def writer(table: str, seed: int = 0) -> Writer:
    limits = {"flush_s": 1.0, "flush_rows": 100, "flush_bytes": 1 << 20}
    return Writer(TABLES[table], Backoff(random.Random(seed)), nothing_rejected, **limits)  # type: ignore[arg-type]


def nothing_rejected(rejected: list[Rejected]) -> None:
    assert rejected == []


def message(table: str, offset: int, i: int, version: int = 1) -> Message:
    body, headers = value(table, i, version)
    return Message(TABLES[table].topic, 0, offset, b"k", body, headers, 1_790_000_000_000 + offset)


def until_taken(w: Writer, store: Any) -> int:
    """Flush until it is taken; returns the attempts."""
    for attempt in range(1, 100):
        if w.flush(lambda: store, 0.0):
            return attempt
    raise AssertionError(w.last_error)


def test_500_lost_replies_double_nothing(gateway_process, gateway: str, client: Client):
    """Tables without merges, so that a row that is there twice shows in them and not only in what views hide."""
    rng = random.Random(11)
    writers = {table: writer(table) for table in VIEWS}
    stored: Counter[str] = Counter()
    for table in VIEWS:
        client.command(f"SYSTEM STOP MERGES {table}")
    with (
        Lossy(gateway_process.port) as lossy,
        connect(gateway.replace(f":{gateway_process.port}/", f":{lossy.server_address[1]}/")) as store,
    ):
        for repetition in range(REPETITIONS):
            table = list(VIEWS)[repetition % len(VIEWS)]
            for _ in range(rng.randint(1, 5)):
                writers[table].add(message(table, stored[table], stored[table]), 0.0)
                stored[table] += 1
            if repetition % 10:
                losses = rng.randint(1, 2)
                assert until_taken(writers[table], _Forgetful(client, losses)) == losses + 1
            else:
                # On the wire. The client repeats an insert once by itself when its connection is closed: of three
                # losses, one is the writer's.
                lossy.lose, lossy.cut = 3, rng.choice((0, 12))
                assert until_taken(writers[table], store) == 2
                assert (lossy.lose, lossy.lost) == (0, 3 * (1 + repetition // 10))
            assert client.command(f"SELECT count() FROM {table}") == stored[table], (repetition, table)
            if repetition % 25 == 0 or repetition >= REPETITIONS - len(VIEWS):
                assert client.command(f"SELECT count() FROM {VIEWS[table]}") == stored[table], (repetition, table)
    assert sum(w.counters["failed_attempts"] for w in writers.values()) >= REPETITIONS
    assert {table: w.counters["rows"] for table, w in writers.items()} == stored


class _Forgetful:
    """A client of which the first replies get lost."""

    def __init__(self, client: Client, losses: int):
        self._client, self._losses = client, losses

    def insert(self, *args: Any, **options: Any) -> None:
        self._client.insert(*args, **options)
        self._lose()

    def raw_insert(self, *args: Any, **options: Any) -> None:
        self._client.raw_insert(*args, **options)
        self._lose()

    def _lose(self) -> None:
        self._losses -= 1
        if self._losses >= 0:
            raise OperationalError("the connection was closed")


class _Unsure:
    """A client that loses some replies, with the insert done or not."""

    def __init__(self, client: Client, rng: random.Random):
        self._client, self._rng = client, rng

    def insert(self, *args: Any, **options: Any) -> None:
        self._perhaps(self._client.insert, *args, **options)

    def raw_insert(self, *args: Any, **options: Any) -> None:
        self._perhaps(self._client.raw_insert, *args, **options)

    def _perhaps(self, insert: Callable[..., Any], *args: Any, **options: Any) -> None:
        fate = self._rng.random()
        if fate < 0.7:
            insert(*args, **options)
        if fate > 0.4:
            raise OperationalError("the connection was closed")


@pytest.mark.parametrize("table", VIEWS)
def test_restarts_with_other_cuts_and_repeated_outputs_read_once(client: Client, table: str):
    """Sinks that die anywhere and go on from an older offset, on a topic in which a stage repeated its outputs."""
    rng = random.Random(f"{table}")
    # What a stage upstream sends again after a restart are its last outputs, in their order, under new offsets.
    things = [(i // 3, 1 + i % 3) for i in range(60)]
    log = things[:30] + things[22:50] + things[41:]
    if table == "trace_events":
        log = [(i, 1) for i in range(len(log))]  # here every record of the topic is a row
    committed = 0
    while committed < len(log):
        w, store = writer(table), _Unsure(client, rng)
        at = max(0, committed - rng.randint(0, 12))  # offsets are committed in the background, so a crash loses some
        for _ in range(rng.randint(1, 6)):
            end = min(len(log), at + rng.randint(1, 15))
            if at == end:
                break
            for offset in range(at, end):
                w.add(message(table, offset, *log[offset]), 0.0)
            done = bool(w.flush(lambda store=store: store, 0.0))  # type: ignore[misc]
            if not done:
                until_taken(w, store) if rng.random() < 0.5 else None
            if w.blocked:
                break
            at = end
            committed = max(committed, at)
    for merged in (False, True):
        if merged:
            client.command(f"OPTIMIZE TABLE {table} FINAL")
        shown = client.query(f"SELECT * FROM {VIEWS[table]}").named_results()
        seen = sorted(_shown(table, row) for row in shown)
        last = dict(log) if table in ("rollups", "ledger", "policies") else dict.fromkeys((i for i, _ in log), 1)  # fmt: skip
        assert seen == sorted(last.items()), "each thing once, in its last version"
    assert client.command(f"SELECT count() FROM {table}") == len(last)


def _shown(table: str, row: dict[str, Any]) -> tuple[int, int]:
    """The thing and the version that a row of a view shows."""
    match table:
        case "trace_events":
            return int(row["event_id"], 16), 1
        case "rewards":
            return int(row["decision_id"][1:]), 1
        case "rollups":
            return int(row["agent"][1:]), row["events"]
        case "alerts":
            return int(row["alert_id"][1:]), 1
        case "policy_acts":
            return int(row["act_id"][1:]), 1
        case "policies":
            return row["version"], int(row["canary_share"] * 8)
        case "ledger":
            return int(row["policy"][1:]), row["n"]
        case _:
            return row["error_offset"], 1
