from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from sinks.clickhouse import connect
from sinks.migrations import Migration, load, migrate, split
from sinks.tables import tables
from steersman.errors import ConfigError
from steersman.topics import Topics


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
    assert len(rows) == 8
    for name, engine, query in rows:
        assert "non_replicated_deduplication_window = 1000" in query, name
        if name != "schema_migrations":
            assert engine == "ReplacingMergeTree"
            assert "ttl_only_drop_parts = 1" in query
            assert "TTL ingested_at" in query
            assert "ORDER BY (tenant, " in query
            assert "PARTITION BY toYYYYMM(" in query
            assert not re.search(r"(cost|usd)\w* (Nullable\()?Float", query)
