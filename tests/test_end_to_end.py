"""The whole loop on one machine, by the commands a user types."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from console.children import ROOT, Child
from serving.metrics import METRICS
from tests.doors.payloads import request
from tests.doors.served import post
from tests.page.served import ask as page_of
from tests.page.served import first_frame

STEERSMAN = str(ROOT / "bin/steersman")
CANARY = "canary-7f3a91"
"""What no log may hold: a comment, and the bytes of dead letters."""


def environment(home: Path) -> dict[str, str]:
    return {"STEERSMAN_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "200"}


def ask(home: Path, *args: str, code: int = 0) -> Any:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("STEERSMAN_")}
    done = subprocess.run(
        [STEERSMAN, *args], capture_output=True, text=True, timeout=120, env=clean | environment(home), check=False
    )
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module", params=["embedded", "kafka"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running `steersman up` on free ports, on either broker, stopped as Ctrl-C would."""
    options = ["--kafka"] if request.param == "kafka" else []
    if options and not os.environ.get("CI") and not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("Apache Kafka needs Java and Maven")
    home = tmp_path_factory.mktemp("up")
    ports = ["--port", "0", "--http-port", "0", "--doors-port", "0", "--page-port", "0"]
    up = Child("up", [STEERSMAN, "up", *ports, "--json", *options], home, environment(home))
    up.wait_until(lambda: '"brokers"' in up.tail(), 120, "ready")
    yield home
    children = subprocess.run(["pgrep", "-P", str(up.pid)], capture_output=True, text=True, check=False).stdout.split()
    assert children
    up.signal(signal.SIGINT)
    assert up.wait(60) == 0, up.tail()
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_a_short_fleet_reaches_every_table(home: Path) -> None:
    stack = json.loads((home / "stack.json").read_text())
    env = {"STEERSMAN_BROKERS": stack["brokers"]}
    fleet = Child(
        "fleet",
        [str(ROOT / ".venv/bin/python"), "-m", "examples.fleet", "--rate", "20", "--seconds", "8", "--json"],
        home,
        env,
    )
    assert fleet.wait(120) == 0, fleet.tail()

    least = {"v_rewards": 100, "v_rollups": 10, "v_policies": 4}
    tables = (*least, "v_dead_letters")
    query = "SELECT " + ", ".join(f"(SELECT count() FROM {table}) AS {table}" for table in tables)
    deadline, counts = time.monotonic() + 60, dict.fromkeys(tables, 0)
    while time.monotonic() < deadline and not all(counts[table] > n for table, n in least.items()):
        counts = {table: int(n) for table, n in ask(home, "sql", query, "--json")[0].items()}
    assert all(counts[table] > n for table, n in least.items()), counts
    assert counts["v_dead_letters"] == 0
    modes = {r["mode"] for r in ask(home, "sql", "SELECT DISTINCT mode FROM v_rewards", "--json")}
    assert modes == {"LIVE", "HOLDOUT"}


def test_status_and_policies(home: Path) -> None:
    (status,) = ask(home, "status", "--json")
    assert status["problems"] == []
    assert status["stored"]["trace_events"] > 0
    listed = {p["policy"]: p for p in ask(home, "policy", "list", "--json")}
    assert listed["research/retrieval"]["version"] > 0
    (shown,) = ask(home, "policy", "show", "research/retrieval", "--json")
    assert sum(a["probability"] for a in shown["arms"]) == pytest.approx(1.0)
    history = ask(home, "policy", "history", "research/retrieval", "--json")
    assert [h["version"] for h in history] == sorted((h["version"] for h in history), reverse=True)


def test_trace_tail_and_topics(home: Path) -> None:
    events = ask(home, "trace", "tail", "--from-beginning", "--limit", "5", "--kind", "DECISION", "--json")
    assert len(events) == 5
    assert all(0 < e["propensity"] <= 1 for e in events)
    topics = {t["topic"]: t for t in ask(home, "topics", "--json")}
    assert topics["steersman.trace.v1"]["records"] > 0


def test_spans_and_feedback_come_in_by_the_doors(home: Path) -> None:
    stack = json.loads((home / "stack.json").read_text())
    spans = request({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}, trace="d0" * 16).SerializeToString()
    assert post(stack["doors"], "/v1/traces", spans, Content_Type="application/x-protobuf")[0] == 200
    feedback = json.dumps({"trace_id": "d0" * 16, "value": 0.5, "comment": CANARY}).encode()
    assert post(stack["doors"], "/v1/feedback", feedback, Content_Type="application/json")[0] == 200
    query = f"SELECT kind, operation, value FROM v_events WHERE trace_id = '{'d0' * 16}' ORDER BY kind"
    deadline = time.monotonic() + 30
    while len(rows := ask(home, "sql", query, "--json")) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [(row["kind"], row["operation"], row["value"]) for row in rows] == [
        ("FEEDBACK", "", 0.5),
        ("MODEL_CALL", "m", None),
    ]


def test_the_live_page_shows_the_loop(home: Path) -> None:
    url = json.loads((home / "stack.json").read_text())["page"]
    deadline = time.monotonic() + 30
    while not (frame := first_frame(url))["traces"] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert {"worker", "sink", "doors"} == {lag["service"] for lag in frame["lag"] if lag["records"] is not None}
    assert any(policy["learned"]["n"] and policy["knobs"] for policy in frame["policies"])
    assert frame["trouble"] is None
    deadline, text = time.monotonic() + 30, ""
    while "<caption>" not in text and time.monotonic() < deadline:
        text = page_of(url, f"/trace/{frame['traces'][0]['trace_id']}")[2]
    assert "Weights of version" in text, "kept in ClickHouse, or else from Kafka"
    assert "computed again" in text


def test_every_service_says_all_that_the_list_of_metrics_says(home: Path) -> None:
    """After a fleet, a poisoned record and two visitors at the doors; what needs a failing store: tests/sinks."""
    stack = json.loads((home / "stack.json").read_text())
    poison = Producer({"bootstrap.servers": stack["brokers"]})
    poison.produce("steersman.trace.v1", CANARY.encode())
    poison.produce("otlp_spans", CANARY.encode())
    assert poison.flush(10) == 0
    for service, name in (("streams", "worker"), ("sink", "sink"), ("doors", "doors")):
        wanted = {m.exposed + ("_count" if m.kind == "histogram" else "") for m in METRICS if service in m.services}
        missing = wanted - {"steersman_sink_refusals_total"}
        deadline = time.monotonic() + 30
        while missing and time.monotonic() < deadline:
            with urllib.request.urlopen(stack[f"metrics_{name}"], timeout=10) as reply:
                text = reply.read().decode()
            missing -= {re.split("[{ ]", line)[0] for line in text.splitlines() if not line.startswith("#")}
        assert not missing, (service, missing)
        for probe in ("livez", "readyz", "version"):
            with urllib.request.urlopen(stack[f"metrics_{name}"].replace("metrics", probe), timeout=10) as reply:
                assert reply.status == 200


def test_logs_are_json_lines_without_payloads(home: Path) -> None:
    """After all of the above: a fleet, spans, a comment, poison on two topics."""
    folder = Path(json.loads((home / "stack.json").read_text())["folder"]) / "logs"
    for service in ("worker", "sink", "doors", "page", "gateway"):
        text = (folder / f"{service}.log").read_text()
        assert CANARY not in text
        lines = [json.loads(line) for line in text.splitlines()]
        assert {line["service"] for line in lines} == {service}
        assert all({"ts", "level", "logger", "event"} <= line.keys() for line in lines)


def test_a_refused_query_exits_1(home: Path) -> None:
    ask(home, "sql", "SELECT no_such_column FROM v_rewards", code=1)
    ask(home, "sql", "DROP TABLE rewards", code=1)
