from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import closing

import pytest
from clickhouse_connect.driver.client import Client

from sinks.clickhouse import connect
from sinks.migrations import Migration, load, migrate, split
from sinks.tables import tables
from steersman.errors import ConfigError
from steersman.topics import Topics
from tests.faults.gateway import Gateway
from tests.sinks.conftest import TEMPLATE


@pytest.fixture
def empty(gateway_process, request: pytest.FixtureRequest) -> Iterator[Client]:
    connected = connect(f"{gateway_process.url}/m_{request.node.name[:40]}", create_database=True)
    yield connected
    connected.command(f"DROP DATABASE m_{request.node.name[:40]}", use_database=False)
    connected.close()


def test_everything_once_then_nothing(empty: Client):
    assert migrate(empty, dry_run=True) == load()
    assert empty.command("EXISTS TABLE trace_events") == 0
    assert migrate(empty) == load()
    assert migrate(empty) == []
    assert empty.command("SELECT count() FROM schema_migrations") == len(load())


def test_interrupted_migration_is_run_again(empty: Client):
    first, *_ = load()
    empty.command(first.statements[0])
    empty.command(first.statements[1])
    assert migrate(empty) == load()


def test_every_migration_that_was_interrupted_can_be_run_again(empty: Client):
    for migration in load():
        for statement in (*migration.statements, *migration.statements):
            empty.command(statement)


def test_changed_migration_is_refused(empty: Client):
    migrate(empty)
    first, *rest = load()
    changed = dataclasses.replace(first, checksum="0" * 64)
    with pytest.raises(ConfigError, match=r"0001_tables was changed .* put the change into a new one"):
        migrate(empty, migrations=[changed, *rest])


def test_database_ahead_of_the_code_is_refused(empty: Client):
    more = Migration(len(load()) + 1, "later", ("SELECT 1",), "f" * 64)
    migrate(empty, migrations=[*load(), more])
    with pytest.raises(ConfigError, match="upgrade steersman"):
        migrate(empty)
    assert migrate(empty, dry_run=True, migrations=load()[:-1], ahead=True) == [], "a sink of the last release goes on"


def test_rows_from_before_have_no_kafka_timestamp_and_views_show_it(empty: Client):
    migrate(empty, migrations=load()[:2])
    empty.command("INSERT INTO alerts (alert_id, ts) VALUES ('old', '2026-09-21 00:00:00')")
    migrate(empty)
    assert empty.query("SELECT toUnixTimestamp64Milli(kafka_timestamp) FROM v_alerts").result_rows == [(0,)]
    for view in ("v_events", "v_rewards", "v_policies", "v_policy_latest", "v_alerts", "v_dead_letters"):
        assert empty.query(f"SELECT kafka_timestamp FROM {view} WHERE kafka_offset < 0").result_rows == []


def test_split_ignores_comments_and_keeps_semicolons_inside():
    text = "-- a;\nSELECT ';' AS a,\n  -- b;\n  2;\n\nSELECT 3 ; \n"
    assert split(text) == ("SELECT ';' AS a,\n  2", "SELECT 3")


def test_folder_must_be_numbered_without_gaps(tmp_path):
    (tmp_path / "0002_x.sql").write_text("SELECT 1;")
    with pytest.raises(ConfigError, match="without gaps"):
        load(tmp_path)
    (tmp_path / "x.sql").write_text("SELECT 1;")
    with pytest.raises(ConfigError, match=r"NNNN_name\.sql"):
        load(tmp_path)


def test_databases_of_tests_are_what_the_migrations_make(client: Client, gateway: str, gateway_process: Gateway):
    """They are made at once (`migrated` in conftest.py), and every other test here relies on that being the same."""
    assert migrate(client, dry_run=True) == []
    queries = (
        "SELECT name, engine_full, create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY 1",
        "SELECT * EXCEPT (database, data_compressed_bytes, data_uncompressed_bytes, marks_bytes) FROM system.columns "
        "WHERE database = currentDatabase() ORDER BY table, position",
    )
    with closing(connect(f"{gateway_process.url}/{TEMPLATE}")) as other:
        for query in queries:
            expected = str(other.query(query).result_rows).replace(TEMPLATE, gateway.rpartition("/")[2])
            assert "v_decisions" in expected
            assert str(client.query(query).result_rows) == expected


def test_tables_hold_what_the_sink_inserts(client: Client):
    """Every column of a table is inserted, with its type but for wrappers that the server adds."""
    for table in tables(Topics()):
        described = client.query(f"DESCRIBE TABLE {table.name}").result_rows
        stored = {n: _bare(kind) for n, kind, default, *_ in described if default == ""}
        assert stored == dict(table.columns), table.name


def _bare(kind: str) -> str:
    return re.sub(r"LowCardinality\((\w+)\)", r"\1", kind).replace("FixedString(64)", "String")


def test_every_table_deduplicates_and_expires(client: Client):
    rows = client.query(
        "SELECT name, engine, create_table_query FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
    ).result_rows
    assert len(rows) == 15
    for name, engine, query in rows:
        assert "non_replicated_deduplication_window = 1000" in query, name
        if name != "schema_migrations":
            assert engine == "ReplacingMergeTree"
            assert "ttl_only_drop_parts = 1" in query
            assert "TTL ingested_at" in query
            assert "ORDER BY (tenant, " in query
            assert "PARTITION BY toYYYYMM(" in query
            assert not re.search(r"(cost|usd)\w* (Nullable\()?Float", query)


def test_inserts_of_busy_tables_make_parts_of_one_file(client: Client):
    """A part whose columns have files of their own is some hundred files: too dear for what is merged seconds later."""
    for table in ("trace_events", "rewards", "rollups", "ledger"):
        query = client.command(f"SHOW CREATE TABLE {table}")
        assert "min_bytes_for_wide_part = 1073741824" in str(query)
        assert "merge_selector_base = 10" in str(query)
    client.command(
        "INSERT INTO trace_events (event_id, tenant, ts) SELECT toString(number), randomString(500), '2026-09-21' FROM numbers(40000)"
    )
    parts = "SELECT part_type, data_uncompressed_bytes > 10485760 FROM system.parts WHERE active AND database = currentDatabase() AND table = 'trace_events'"
    assert client.query(parts).result_rows == [("Compact", 1)]


def test_what_an_insert_leaves_out_is_null_or_empty(client: Client):
    """The sink leaves out columns that are empty in all rows (`sinks.rows.EncodedRows`): no default may make anything else of them."""
    columns = client.query(
        "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND default_kind = 'DEFAULT'"
    ).result_rows
    assert {name for _, name in columns} == {"ingested_at"}


def without_window(client: Client) -> set[str]:
    """Tables that would take a repeated insert twice: those inserted into, and those that a view inserts into."""
    tables = client.query(
        "SELECT database || '.' || name, engine, engine_full, create_table_query, toString(uuid) FROM system.tables "
        "WHERE database = currentDatabase()"
    ).result_rows
    window = re.compile(r"non_replicated_deduplication_window = [1-9]|ENGINE = Replicated")
    safe = {name for name, _, full, *_ in tables if window.search(f"ENGINE = {full}")}
    targets = {name for name, engine, *_ in tables if engine.endswith("MergeTree")}
    for name, engine, _, query, uuid in tables:
        if engine == "MaterializedView":
            to = re.search(r" TO ([\w.`]+)", query)
            inner = f"{name.partition('.')[0]}..inner_id.{uuid}"
            targets.add(to.group(1).replace("`", "") if to else inner)
    return {name.partition(".")[2] for name in targets - safe}


def test_every_table_and_view_target_drops_a_repeated_insert(client: Client):
    assert without_window(client) == set()
    client.command("CREATE TABLE bare (tenant String, n UInt64) ENGINE = SummingMergeTree ORDER BY tenant")
    client.command("CREATE MATERIALIZED VIEW a TO bare AS SELECT tenant, 1 AS n FROM alerts")
    client.command("CREATE MATERIALIZED VIEW b ENGINE = SummingMergeTree ORDER BY tenant AS SELECT tenant FROM alerts")
    found = without_window(client)
    assert "bare" in found
    assert len(found) == 2, "a view that somebody adds without a window is found, its own table too"
