"""`steersman fold` as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from console.children import ROOT, python
from sinks.clickhouse import connect
from sinks.migrations import migrate
from tests.faults.gateway import Gateway


def command(url: str, *more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STEERSMAN_CLICKHOUSE_URL": url}
    return subprocess.run(
        [*python("console", "fold"), *more], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def test_it_says_what_was_folded(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    try:
        missing = command(gateway.url)
        assert missing.returncode == 1
        assert "'steersman migrate' first" in missing.stderr
        with connect(gateway.url) as client:
            migrate(client)
            client.command(
                "INSERT INTO trace_events (event_id, tenant, trace_id, kind, ts, kafka_offset, ingested_at) SELECT toString(number), 't', "
                "toString(number % 2), 'END', now64(6) - INTERVAL 2 HOUR, number, now() - INTERVAL 1 HOUR FROM numbers(6)"
            )
            done = command(gateway.url, "--json")
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout) == {"traces": 2, "events": 6, "steps": 1, "put_off": False}
            assert client.query("SELECT count() FROM trace_totals").result_rows == [(2,)]
            assert command(gateway.url).stdout == "nothing to fold\n"
    finally:
        gateway.child.stop()
