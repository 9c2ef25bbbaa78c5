"""The endpoint for operators, and the numbers behind it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from serving.access import Tokens, foreign_host, read_tokens
from serving.health import Health
from serving.lag import LagBook
from serving.metrics import METRICS, SERVICES, MetricSet
from serving.monitor import Monitor
from steersman.errors import ConfigError
from tests.doors.served import post


def test_paths_types_and_reasons() -> None:
    metrics, health = MetricSet("sink"), Health(stall_s=1e9)
    why: list[str] = []
    health.check(lambda: why[0] if why else None)
    with Monitor(metrics.registry, health, 0) as monitor:

        def get(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
            return post(monitor.url, path, b"", method=method, **headers)

        status, headers, body = get("/metrics")
        assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain")
        assert headers["x-content-type-options"] == "nosniff"
        shown = {family.name for family in text_string_to_metric_families(body.decode())}
        assert {m.name for m in METRICS if "sink" in m.services} <= shown
        assert get("/metrics", Accept="application/openmetrics-text; version=1.0.0")[2].endswith(b"# EOF\n")
        assert json.loads(get("/livez")[2]) == {"alive": True, "reasons": []}
        assert json.loads(get("/readyz?x=1")[2]) == {"ready": True, "reasons": []}
        why.append("the store is away")
        assert get("/readyz")[0] == 503
        assert json.loads(get("/readyz")[2]) == {"ready": False, "reasons": ["the store is away"]}
        assert get("/livez")[0] == 200
        assert get("/nothing")[0] == 404
        assert get("/metrics", method="HEAD")[2] == b""
        assert get("/metrics", method="POST")[0] == 501
        assert get("/metrics", Host="evil.example")[0] == 403
        with pytest.raises(ConfigError, match="is taken"):
            Monitor(metrics.registry, health, monitor.port)


def test_a_set_has_the_metrics_of_its_service_and_knows_their_types() -> None:
    for service in SERVICES:
        made = MetricSet(service)
        names = {metric.name for metric in METRICS if service in metric.services}
        for metric in METRICS:
            read = {"counter": made.counter, "gauge": made.gauge, "histogram": made.histogram}[metric.kind]
            other = made.gauge if metric.kind != "gauge" else made.counter
            if metric.name in names:
                assert read(metric.name)
            else:
                with pytest.raises(KeyError):
                    read(metric.name)
            with pytest.raises(KeyError):
                other(metric.name)
        assert made.registry.get_sample_value("steersman_build_info", {"service": service, "version": "0.1.0"}) == 1


class Consumer:
    """What a lag book asks of a consumer; `committed` fails while the broker is away."""

    def __init__(self) -> None:
        self.assigned = [TopicPartition("t", 0), TopicPartition("t", 1)]
        self.ends = {0: (0, 50), 1: (10, 30)}
        self.away = True

    def assignment(self) -> list[TopicPartition]:
        return self.assigned

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self.away:
            raise RuntimeError("away")
        return [TopicPartition(p.topic, p.partition, 20 if p.partition == 0 else -1001) for p in partitions]

    def get_watermark_offsets(self, place: TopicPartition, cached: bool) -> tuple[int, int]:
        return self.ends[place.partition]


def test_lag_is_what_is_not_committed() -> None:
    metrics, consumer = MetricSet("sink"), Consumer()
    book = LagBook(consumer, metrics.gauge("steersman_consumer_lag_records"))

    def shown(partition: int) -> float | None:
        labels = {"topic": "t", "partition": str(partition)}
        return metrics.registry.get_sample_value("steersman_consumer_lag_records", labels)

    assert (book.measure(), shown(0)) == (0, None), "not known yet"
    consumer.away = False
    assert (book.measure(), shown(0), shown(1)) == (50, 30, 20)
    book.committed("t", {0: 45, 1: 30})
    assert (book.measure(), shown(0), shown(1), book.commits) == (5, 5, 0, 1)
    consumer.ends[0] = (-1001, -1001)  # nothing fetched yet
    assert book.measure() == 0
    book.revoked([("t", 1)])
    consumer.assigned = consumer.assigned[:1]
    book.measure()
    assert shown(1) is None


@pytest.mark.parametrize(
    ("host", "origin", "foreign"),
    [
        ("localhost:4318", None, None),
        ("LOCALHOST", None, None),
        ("[::1]:9", None, None),
        ("127.0.0.1", "http://localhost:3000", None),
        (None, None, ""),
        ("evil.example", None, "evil.example"),
        ("localhost.evil.example:80", None, "localhost.evil.example"),
        ("localhost", "https://evil.example", "evil.example"),
        ("localhost", "null", ""),
        ("[::1", None, "[::1"),
    ],
)
def test_hosts(host: str | None, origin: str | None, foreign: str | None) -> None:
    assert foreign_host(host, origin, frozenset({"localhost", "127.0.0.1", "::1"})) == foreign


def test_tokens(tmp_path: Any) -> None:
    assert Tokens({}, "default").tenant(None) == "default"
    tokens = Tokens({"a" * 16: "acme", "ü" * 16: "other"}, "default")
    assert tokens.required
    assert tokens.tenant("bearer  " + "a" * 16) == "acme"
    assert tokens.tenant("Bearer " + "ü" * 16) == "other"
    for bad in (None, "", "Bearer", "a" * 16, "Bearer " + "a" * 15, "Bearer " + "a" * 17, "Bearer \ud800"):
        assert tokens.tenant(bad) is None
    file = tmp_path / "tokens"
    file.write_text(f"# who may come in\nacme {'a' * 16}\n\nother {'b' * 16}  # since May\n")
    assert read_tokens(file) == {"a" * 16: "acme", "b" * 16: "other"}
    for text, says in (("", "holds no token"), ("acme short", "line 1"), ("x y z", "line 1")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=says) as caught:
            read_tokens(file)
        assert "short" not in str(caught.value).removeprefix(str(file))
