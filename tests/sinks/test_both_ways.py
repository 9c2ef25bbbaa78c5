"""The same topic into ClickHouse by columns and by decoding: the same tables, the same dead letters."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from learners.policies_file import load_policies
from sinks.batch import Rejected
from sinks.clickhouse import connect
from sinks.migrations import migrate
from sinks.rows import EncodedRows, rows_of
from sinks.tables import Message, Table, tables
from sinks.writer import Backoff, Writer
from steersman.topics import Topics
from tests.faults.traces import Mix, Traffic
from tests.sinks.hostile import any_record, mutated
from tests.sinks.records import codec

TABLES = {table.name: table for table in tables(Topics()) if table.encoding is not None}
HOSTILE = Mix(duplicates=0.02, poison=0.01, bombs=0.005, garbage=0.01, disorder=0.1)


def log_of(table: Table) -> Iterator[bytes]:
    """Traffic of many agents with what goes wrong, and for every table any records, some of them broken."""
    rng = random.Random(table.name)
    if table.name == "trace_events":
        policies = load_policies(Path(__file__).parents[2] / "policies.toml")
        yield from (sent.value for sent in Traffic(3, policies, HOSTILE).records(3000))
    contract = codec(table.encoding.codec.name)  # type: ignore[union-attr]
    for _ in range(500):
        value = contract.encode(any_record(rng, contract.name))
        yield mutated(rng, value) if rng.random() < 0.1 else value


@pytest.mark.parametrize("name", TABLES)
def test_same_rows_and_dead_letters(client: Client, name: str):
    table = TABLES[name]
    for copy in ("found", "expected"):
        client.command(f"CREATE TABLE {copy} AS {name}")
        client.command(f"SYSTEM STOP MERGES {copy}")
    client.set_client_setting("optimize_on_insert", "0")  # an insert would keep one row per key
    rng = random.Random(1)
    offsets = [rng.randrange(1000) for _ in range(3)]
    log = []
    for value in log_of(table):
        partition = rng.randrange(3)
        offsets[partition] += rng.choice((1, 1, 1, 2))
        stamp = rng.choice((1_790_000_000_000, -1))
        log.append(Message(table.topic, partition, offsets[partition], b"k", value, timestamp_ms=stamp))
    dead = []
    for made in (replace(table, name="found"), replace(table, name="expected", encoding=None)):
        rejected: list[Rejected] = []
        w = Writer(made, Backoff(rng), rejected.extend, flush_s=1, flush_rows=700, flush_bytes=1 << 30)
        for message in log:
            w.add(message, 0.0)
            if w.due(0.0):
                assert w.flush(lambda: client, 0.0), w.last_error
        while w.waiting:
            assert w.flush(lambda: client, 0.0), w.last_error
        dead.append([(r.message, str(r.error)) for r in rejected])
        assert w.counters["rejected"] == len(rejected) > 10
    assert dead[0] == dead[1]
    found, expected = contents(client, "found"), contents(client, "expected")
    assert len(expected) == w.counters["rows"] > 400
    assert found == expected


def test_pieces_of_several_parts(client: Client, monkeypatch: pytest.MonkeyPatch):
    """A part is a block of the insert; pieces begin and end anywhere, and a repeated one is dropped."""
    table = TABLES["ledger"]
    values = [
        codec("ledger").encode(any_record(random.Random(i), "ledger", minute=0, policy=f"p{i}")) for i in range(99)
    ]
    log = [Message(table.topic, 0, i, None, value) for i, value in enumerate(values)]
    monkeypatch.setattr("sinks.rows._READ_BYTES", 3000)
    made, _ = rows_of(table, log)
    assert isinstance(made, EncodedRows)
    sizes = [len(part.messages) for part in made.parts]
    assert len(sizes) > 4
    cuts = [0, 1, sizes[0], sizes[0] + sizes[1] - 1, made.count - sizes[-1] - 1, made.count - 1, made.count]
    for _ in range(2):
        for first, last in pairwise(cuts):
            made.insert(client, first, last, {"insert_deduplication_token": f"{first}"})
    assert client.command("SELECT count() FROM ledger") == 99
    client.command("CREATE TABLE expected AS ledger")
    decoded, _ = rows_of(replace(table, name="expected", encoding=None), log)
    decoded.insert(client, 0, 99, {})
    assert contents(client, "ledger") == contents(client, "expected")


def contents(client: Client, table: str) -> list[Any]:
    columns = "* EXCEPT (ingested_at)"
    # As text, since a NaN equals nothing and a tuple of arrays has no order in Python.
    sql = f"SELECT formatRowNoNewline('JSONCompactEachRow', {columns}) FROM {table} ORDER BY kafka_partition, kafka_offset"
    return [row for (row,) in client.query(sql).result_rows]


def test_in_process(tmp_path: Path):
    """chDB without the gateway between."""
    table = TABLES["rewards"]
    values = [codec("reward").encode(any_record(random.Random(i), "reward", ts=1_790_000_000_000_000, decided_at=1_790_000_000_000_000)) for i in range(50)]  # fmt: skip
    with connect(f"chdb://{tmp_path}/data") as client:
        migrate(client)
        client.command("CREATE TABLE expected AS rewards")
        for made in (table, replace(table, name="expected", encoding=None)):
            w = Writer(made, Backoff(random.Random(0)), lambda r: None, flush_s=1, flush_rows=1, flush_bytes=1)
            for offset, value in enumerate(values):
                w.add(Message(table.topic, 0, offset, None, value), 0.0)
            assert w.flush(lambda: client, 0.0) == {0: 50}, w.last_error
        assert contents(client, "rewards") == contents(client, "expected")
        assert len(contents(client, "rewards")) == 50


def test_compressed_on_its_way(gateway: str, client: Client):
    """As to a server that is not on this machine."""
    at = urlsplit(gateway)
    remote = clickhouse_connect.get_client(
        host="127.0.0.1", port=at.port, database=at.path.strip("/"), username=at.username, password=at.password,
        autogenerate_session_id=False, compress=True,
    )  # fmt: skip
    assert remote.write_compression == "lz4"
    table = TABLES["alerts"]
    w = Writer(table, Backoff(random.Random(0)), lambda r: None, flush_s=1, flush_rows=1, flush_bytes=1)
    for i in range(100):
        made = any_record(random.Random(i), "alert", alert_id=f"a{i}", ts=1_790_000_000_000_000, message="ü" * 500)
        w.add(Message(table.topic, 0, i, None, codec("alert").encode(made)), 0.0)
    assert w.flush(lambda: remote, 0.0) == {0: 100}, w.last_error
    remote.close()
    assert client.query("SELECT count(), any(message) FROM alerts").first_row == (100, "ü" * 500)
