"""Export to Parquet, through the gateway over HTTP and from chDB on disk, read back with pyarrow."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from console.children import ROOT
from sinks.export import TIMES, Request, count, export
from steersman.errors import ConfigError
from tests.sinks.analyst_world import make, store
from tests.streams.trace_events import T0, S


def at(us: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(us / 1e6, dt.UTC)


def test_decisions_come_back_as_they_are(client: Client, gateway: str, tmp_path: Path) -> None:
    world = make()
    store(client, world)
    since, until = at(T0 + 3600 * S), at(T0 + 20 * 3600 * S)
    request = Request("v_decisions", since, until, "default")
    file = tmp_path / "decisions.parquet"
    sizes: list[int] = []
    size = export(client, request, file, sizes.append)
    assert file.stat().st_size == size == sizes[-1]
    table = pq.read_table(file)
    wanted = {e["decision_id"]: e for e in world.of("DECISION") if since <= at(e["ts"]) < until}
    rewards = {r["decision_id"]: r for r in world.rewards}
    assert table.num_rows == count(client, request) == len(wanted) > 100
    for row in table.to_pylist():
        made, reward = wanted[row["decision_id"]], rewards[row["decision_id"]]
        assert (row["arm"], row["propensity"], row["features"]) == (made["arm"], made["propensity"], made["features"])
        assert row["utility"] == reward["utility"]
        assert row["decided_at"].replace(tzinfo=dt.UTC) == at(made["ts"])
    assert list(tmp_path.glob(".*")) == []

    # Every view that can be exported, whole, and with nothing in it.
    for view in TIMES:
        assert export(client, Request(view), file) > 0, view
        assert pq.read_table(file).num_rows == count(client, Request(view)), view
    export(client, Request("v_events", None, None, "nobody"), file)
    assert pq.read_table(file).num_rows == 0
    assert "trace_id" in pq.read_table(file).column_names

    # The command, the data named by its address.
    out = tmp_path / "costs.parquet"
    command = [
        str(ROOT / "bin/steersman"),
        "export",
        "--table",
        "v_costs_daily",
        "--out",
        str(out),
        "--clickhouse",
        gateway,
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert f'"rows": {pq.read_table(out).num_rows}' in done.stdout
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (refused.returncode, "exists" in refused.stderr) == (2, True)


def test_what_goes_wrong_leaves_no_file(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    client.command("DROP VIEW v_alerts")
    with pytest.raises(ClickHouseError, match="v_alerts"):
        export(client, Request("v_alerts"), file)
    client.command(
        "CREATE VIEW v_alerts AS SELECT now64(6) AS ts, throwIf(number = 100000, 'half way') AS n FROM numbers(200000)"
    )
    with pytest.raises(ClickHouseError, match="half way"):
        export(client, Request("v_alerts"), file)

    def interrupted(size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(client, Request("v_events"), file, interrupted)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="cannot write"):
        export(client, Request("v_events"), tmp_path / "no" / "x.parquet")


def test_ctrl_c_removes_the_partial_file(client: Client, gateway: str, tmp_path: Path) -> None:
    slow = "SELECT now64(6) AS ts, sleepEachRow(1) AS n FROM numbers(3) SETTINGS max_block_size = 1"
    client.command(f"CREATE OR REPLACE VIEW v_alerts AS {slow}")
    file = tmp_path / "x.parquet"
    command = [
        str(ROOT / "bin/steersman"),
        "export",
        "--table",
        "v_alerts",
        "--out",
        str(file),
        "--clickhouse",
        gateway,
    ]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "NO_COLOR": "1"})
    deadline = time.monotonic() + 30
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()), "it never began to write"
    child.send_signal(signal.SIGINT)
    assert child.wait(20) != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("view", ["trace_events", "v_ope", "v_events; DROP TABLE x", "system.tables"])
def test_only_views_that_are_listed(view: str) -> None:
    with pytest.raises(ConfigError, match="it is one of"):
        Request(view)


def test_a_span_with_nothing_in_it() -> None:
    with pytest.raises(ConfigError, match="nothing lies between"):
        Request("v_events", at(T0), at(T0))
