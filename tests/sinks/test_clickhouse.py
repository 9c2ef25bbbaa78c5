from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from sinks.clickhouse import connect
from sinks.settings import load_settings
from steersman.errors import ConfigError, Unreachable


def test_times_are_aware_and_utc(client):
    (value,) = client.query("SELECT toDateTime64('2026-11-23 01:02:03.5', 6, 'UTC')").first_row
    assert value == dt.datetime(2026, 11, 23, 1, 2, 3, 500_000, dt.UTC)
    assert client.command("SELECT getSetting('async_insert')") in (0, "false")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8123", "write http://host:port"),
        ("ftp://host", "write http://host:port"),
        ("http://", "write http://host:port"),
        ("http://host:99999", "host or port is none"),
        ("http://host/a-b", "name of a database is a letter"),
    ],
)
def test_addresses_that_are_none(url: str, message: str):
    with pytest.raises(ConfigError, match=message):
        connect(url)


def test_password_is_never_shown():
    with pytest.raises(Unreachable) as caught:
        connect("http://user:hunter2@127.0.0.1:1")
    assert "hunter2" not in str(caught.value)
    assert "user:***@127.0.0.1:1" in str(caught.value)
    with pytest.raises(ConfigError) as refused:
        connect("http://user:hunter2@host:port")
    assert "hunter2" not in str(refused.value)


def test_missing_database_says_so_and_can_be_created(gateway_process):
    url = f"{gateway_process.url}/created_here"
    with pytest.raises(Unreachable, match="python -m sinks migrate"):
        connect(url)
    connect(url, create_database=True).close()
    again = connect(url)
    assert again.command("SELECT currentDatabase()") == "created_here"
    again.command("DROP DATABASE created_here")
    again.close()


def test_folder_that_a_process_has_open(gateway_process):
    with pytest.raises(Unreachable, match="one process at a time"):
        connect(f"chdb://{gateway_process.folder / 'data'}")


def test_settings_from_environment_and_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("STEERSMAN_SINK_FLUSH_ROWS", "77")
    monkeypatch.setenv("STEERSMAN_BROKERS", "env:1")
    settings = load_settings(brokers="given:2", clickhouse_url=None)
    assert (settings.brokers, settings.sink_flush_rows, settings.clickhouse_url) == (
        "given:2",
        77,
        "http://127.0.0.1:8123",
    )
    monkeypatch.setenv("STEERSMAN_SINK_FLUSH_S", "0")
    with pytest.raises(ConfigError, match=r"sink_flush_s: .*greater than 0 \(environment STEERSMAN_SINK_FLUSH_S\)"):
        load_settings()
