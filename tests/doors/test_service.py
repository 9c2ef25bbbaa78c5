"""``python -m doors`` as it runs: spans of real instrumentation packages up to rows in ClickHouse, over HTTP and over the topic."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from console.brokers import Broker
from console.children import Child, free_port, python
from doors.__main__ import main
from doors.counting import Counting
from doors.intake import Intake
from doors.mapped import Rules
from doors.publisher import Publisher
from doors.topic import TopicDoor
from examples.model_server import USAGE, ModelServer
from serving.health import Health
from serving.metrics import METRICS, MetricSet
from sinks.clickhouse import connect
from sinks.migrations import migrate
from steersman.codec import Codec
from steersman.topics import Topics
from streams.topics import create_topics
from tests.doors.payloads import many, request
from tests.doors.served import post
from tests.faults.gateway import Gateway

SECRET = "the-secret-of-the-answer"
EMITTERS = {
    "genai-openai": 8,
    "genai-anthropic": 5,
    "openllmetry-openai": 8,
    "openllmetry-anthropic": 5,
    "openinference-openai": 8,
    "openinference-anthropic": 5,
}
"""Emitter -> spans of the agent under it."""
TOKENS = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


@dataclass
class Platform:
    """Kafka, doors, sink and ClickHouse."""

    bootstrap: str
    topics: Topics
    otlp_topic: str
    env: dict[str, str]
    folder: Path
    store: Client
    doors: Child
    url: str
    monitor: str

    def start_doors(self) -> None:
        port = int(self.url.rpartition(":")[2])
        self.doors = Child("doors", python("doors", "--port", str(port)), self.folder, self.env)
        self.doors.wait_until(lambda: reply(f"{self.monitor}/livez")[0] == 200, 60, "answering /livez")

    def rows(self, query: str) -> list[dict[str, Any]]:
        return list(self.store.query(query).named_results())

    def until(self, condition: Callable[[], bool], timeout_s: float = 60) -> None:
        self.doors.wait_until(condition, timeout_s, "what the test waits for")


def reply(url: str) -> tuple[int, Any]:
    """Status and body of a GET, JSON where it is some; 0 without an answer."""
    try:
        with urllib.request.urlopen(url, timeout=5) as got:
            status, body = got.status, got.read()
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read()
    except OSError:
        return 0, None
    return status, json.loads(body) if body[:1] == b"{" else body.decode()


@pytest.fixture(scope="module")
def platform(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("doors")
    topics = Topics(f"doors{time.time_ns()}")
    create_topics(kafka.bootstrap, topics, 2)
    gateway = Gateway(folder)
    client = connect(gateway.url)
    migrate(client)
    monitor = free_port()
    env = {
        "STEERSMAN_BROKERS": kafka.bootstrap,
        "STEERSMAN_TOPIC_PREFIX": topics.prefix,
        "STEERSMAN_CLICKHOUSE_URL": gateway.url,
        "STEERSMAN_SINK_FLUSH_S": "0.2",
        "STEERSMAN_METRICS_PORT": str(monitor),
        "STEERSMAN_OTLP_TOPIC": f"{topics.prefix}-otlp",
        "STEERSMAN_OTLP_PARTITIONS": "2",
        "STEERSMAN_TENANT": "acme",
        # Less than a batch of the topic makes: it has to wait for its own.
        "STEERSMAN_DOORS_MAX_WAITING": "100",
    }
    sink = Child("sink", python("sinks", "run"), folder, {**env, "STEERSMAN_METRICS_PORT": ""})
    port = free_port()
    built = Platform(
        kafka.bootstrap, topics, env["STEERSMAN_OTLP_TOPIC"], env, folder, client, sink,
        f"http://127.0.0.1:{port}", f"http://127.0.0.1:{monitor}",
    )  # fmt: skip
    built.start_doors()
    yield built
    assert built.doors.stop(30) == 0, built.doors.tail()
    assert sink.stop(30) == 0, sink.tail()
    client.close()
    gateway.child.stop()


@pytest.fixture(scope="module")
def truth(platform: Platform) -> dict[str, list[dict[str, Any]]]:
    """What the SDKs say they ended, by emitter; their spans have been sent to the door."""
    with ModelServer(answer=lambda model, question: SECRET) as models:
        command = [sys.executable, "-m", "tests.doors.emitters", models.url, platform.url, str(platform.folder)]
        env = {**os.environ, "PYTHONPATH": os.getcwd()}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    ended: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    assert {name: len(spans) for name, spans in ended.items()} == EMITTERS
    total = sum(EMITTERS.values())
    spans = "SELECT count() AS n FROM v_events WHERE kind NOT IN ('END', 'FEEDBACK')"
    platform.until(lambda: platform.rows(spans)[0]["n"] >= total)
    return ended


@pytest.mark.parametrize("emitter", EMITTERS)
def test_every_span_of_an_emitter_is_a_complete_row(
    platform: Platform, truth: dict[str, list[dict[str, Any]]], emitter: str
) -> None:
    spans = truth[emitter]
    (trace_id,) = {span["trace_id"] for span in spans}
    query = f"SELECT *, toUnixTimestamp64Micro(ts) AS us FROM v_events WHERE trace_id = '{trace_id}'"
    found = platform.rows(query)
    rows = {row["span_id"]: row for row in found if row["kind"] not in ("END", "FEEDBACK")}
    assert rows.keys() == {span["span_id"] for span in spans}
    for span in spans:
        row = rows[span["span_id"]]
        assert row["parent_span_id"] == (span["parent_span_id"] or "")
        assert (row["us"], row["duration_us"]) == (span["end_us"], span["end_us"] - span["start_us"])
        assert (row["tenant"], row["truncated"]) == ("acme", False)
        assert row["agent"] == ("planner" if span["parent_span_id"] is None else "research")
        assert row["operation"]
        assert json.loads(row["attributes"])["otel.scope.name"] == span["scope"]
        _complete(row)
    assert sorted(row["kind"] for row in found) == sorted(
        ["AGENT", "TOOL_CALL", "FEEDBACK", "END", *["MODEL_CALL"] * (len(spans) - 2)]
    )
    (feedback,) = [row for row in found if row["kind"] == "FEEDBACK"]
    assert (feedback["metric"], feedback["value"], feedback["target_span_id"]) == (
        "relevance",
        0.75,
        spans[-1]["span_id"],
    )
    assert "the-secret" not in repr(found)
    assert SECRET.startswith("the-secret")


def _complete(row: dict[str, Any]) -> None:
    if row["kind"] != "MODEL_CALL":
        assert (row["kind"], row["operation"]) in {("AGENT", "planner"), ("TOOL_CALL", "search")}
        return
    provider = (
        "anthropic" if row["operation"].startswith("claude") or row["error"].startswith("anthropic") else "openai"
    )
    if row["operation"] == "broken":
        assert row["status"] == "ERROR"
        assert row["error"].endswith("RateLimitError")
        assert row["provider"] in ("openai", "anthropic")
        return
    assert (row["status"], row["provider"]) == ("OK", provider)
    tokens = {name: row[name] or 0 for name in TOKENS}
    assert tokens["input_tokens"] == USAGE["input"]
    if row["operation"].startswith("text-embedding"):
        return
    # OpenLLMetry adds the first token that Anthropic's stream announces to the total at its end.
    assert tokens["output_tokens"] - USAGE["output"] in (0, 1 if provider == "anthropic" else 0)
    assert tokens["cached_input_tokens"] == USAGE["cached"]
    if provider == "anthropic":
        assert tokens["cache_write_tokens"] == USAGE["cache_write"]
    elif json.loads(row["attributes"]).get("gen_ai.is_streaming") is not True:
        assert tokens["reasoning_tokens"] == USAGE["reasoning"]  # which OpenLLMetry leaves out of streams


def test_the_collectors_topic_brings_the_same_events(
    platform: Platform, truth: dict[str, list[dict[str, Any]]]
) -> None:
    before = platform.rows("SELECT count() AS n, uniqExact(event_id) AS ids FROM v_events")[0]
    producer = Producer({"bootstrap.servers": platform.bootstrap})
    for name in EMITTERS:
        producer.produce(platform.otlp_topic, (platform.folder / f"{name}.otlp").read_bytes(), headers=[("h", b"1")])
    producer.produce(platform.otlp_topic, b"garbage", key=b"k", headers=[("h", b"1")])
    assert producer.flush(20) == 0
    platform.until(
        lambda: (
            platform.rows("SELECT count() AS n FROM v_events")[0]["n"] >= 2 * before["n"]
            and len(platform.rows("SELECT * FROM v_dead_letters")) == 1
        )
    )
    after = platform.rows("SELECT count() AS n, uniqExact(event_id) AS ids FROM v_events")[0]
    assert (after["n"], after["ids"]) == (2 * before["n"], before["ids"])
    (dead,) = platform.rows("SELECT * FROM v_dead_letters")
    assert (dead["stage"], dead["reason"], dead["value_text"]) == ("DESERIALIZE", "bad_protobuf", "garbage")
    assert dead["error_topic"] == platform.otlp_topic


def test_its_endpoint_says_all_that_the_list_says(platform: Platform, truth: dict[str, list[dict[str, Any]]]) -> None:
    feedback = json.dumps({"trace_id": "ab" * 16, "value": 1}).encode()
    assert post(platform.url, "/v1/feedback", feedback, Content_Type="application/json")[0] == 200
    assert post(platform.url, "/v1/traces", b"garbage", Content_Type="application/json")[0] == 400
    status, text = reply(f"{platform.monitor}/metrics")
    assert status == 200
    samples = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    wanted = {m.exposed + ("_count" if m.kind == "histogram" else "") for m in METRICS if "doors" in m.services}
    assert wanted <= samples
    assert reply(f"{platform.monitor}/livez") == (200, {"alive": True, "reasons": []})
    assert reply(f"{platform.monitor}/readyz") == (200, {"ready": True, "reasons": []})
    assert reply(f"{platform.monitor}/nothing")[0] == 404


def test_a_killed_door_loses_nothing_of_the_topic(platform: Platform) -> None:
    """kill -9 while it reads: the next one goes on where the last commit was; repeats have the same ids."""
    count = 400
    producer = Producer({"bootstrap.servers": platform.bootstrap})
    for n in range(count):
        spans = many(*[request(trace=f"{n + 1:032x}", span=f"{m + 1:016x}") for m in range(5)])
        producer.produce(platform.otlp_topic, spans.SerializeToString(), partition=n % 2)
    assert producer.flush(20) == 0
    mine = "FROM v_events WHERE trace_id < '00000000000000000000000000001000'"
    platform.until(lambda: platform.rows(f"SELECT uniqExact(event_id) AS n {mine}")[0]["n"] > 0)
    platform.doors.kill()
    platform.start_doors()
    platform.until(lambda: platform.rows(f"SELECT uniqExact(event_id) AS n {mine}")[0]["n"] >= 5 * count)
    assert platform.rows(f"SELECT uniqExact(event_id) AS n {mine}")[0]["n"] == 5 * count


def test_a_hung_up_terminal_is_an_orderly_end(platform: Platform, tmp_path: Path) -> None:
    ports = tmp_path / "port"
    env = {**platform.env, "STEERSMAN_METRICS_PORT": ""}
    command = python("doors", "--port", "0", "--port-file", str(ports), "--otlp-topic", "")
    child = Child("doors2", command, tmp_path, env)
    child.wait_until(ports.exists, 60, "its port")
    url = f"http://127.0.0.1:{ports.read_text()}"
    assert post(url, "/v1/traces", request().SerializeToString(), Content_Type="application/x-protobuf")[0] == 200
    child.signal(signal.SIGINT)
    assert child.wait(20) == 0, child.tail()
    assert not ports.exists()


def test_a_topic_that_is_not_there_yet_is_said_and_awaited(broker: Broker) -> None:
    """The embedded broker; the doors create the topic where they may, here it is as if they may not."""
    topics, metrics = Topics(f"late{time.time_ns()}"), MetricSet("doors")
    create_topics(broker.bootstrap, topics, 1)
    publisher = Publisher(broker.bootstrap, max_waiting=1000, timeout_s=10)
    intake = Intake(topics.trace, Codec("trace_event"), Rules(), max_spans=10, dead_letter_topic=topics.dead_letter)
    late, health = f"{topics.prefix}-otlp", Health()
    door = TopicDoor(
        broker.bootstrap, late, topics.prefix, dead_letter_topic=topics.dead_letter, intake=intake,
        publisher=publisher, counting=Counting(metrics), health=health, tenant="acme", session_timeout_s=1.0,
    )  # fmt: skip
    door.start()
    try:
        wait_until(lambda: door.trouble() == f"there is no topic {late} yet")
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic(late, num_partitions=1, replication_factor=1)])[late].result(20)
        wait_until(lambda: door.trouble() is None, 40)
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        producer.produce(late, request().SerializeToString())
        producer.produce(late, many(*[request() for _ in range(11)]).SerializeToString())  # too many
        producer.produce(late, None)
        assert producer.flush(20) == 0
        taken = {"door": "topic", "result": "taken"}
        wait_until(lambda: metrics.registry.get_sample_value("steersman_door_items_total", taken) == 1)
        refused = {"door": "topic", "reason": "too_many"}
        wait_until(lambda: metrics.registry.get_sample_value("steersman_door_refusals_total", refused) == 1)
        assert health.dead() == []
    finally:
        door.close(20)
        assert publisher.close(10) == 0
    assert not door.failed


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("options", "env", "code", "says"),
    [
        (["--host", "0.0.0.0"], {}, 2, "open to everybody"),
        ([], {"STEERSMAN_DOORS_TOKEN": "short"}, 2, "at least 16"),
        ([], {"STEERSMAN_DOORS_TOKENS_FILE": "/nowhere"}, 2, "/nowhere cannot be read"),
        ([], {"STEERSMAN_DOORS_MAX_SPANS": "0"}, 2, "STEERSMAN_DOORS_MAX_SPANS"),
        (["--brokers", "127.0.0.1:1"], {}, 3, "cannot reach Kafka at 127.0.0.1:1"),
    ],
)
def test_wrong_settings_are_named(
    options: list[str],
    env: dict[str, str],
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert main(options) == code
    assert says in capsys.readouterr().err
