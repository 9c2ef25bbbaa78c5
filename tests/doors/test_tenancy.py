"""Whose events these are: the sender's. What names another tenant is a dead letter, and the sender is told so."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from console.brokers import Broker
from doors.counting import Counting
from doors.http import Limits
from doors.intake import Intake
from doors.mapped import Rules
from doors.publisher import Publisher
from doors.tenancy import TenantMismatch
from doors.topic import TopicDoor
from serving.health import Health
from serving.metrics import MetricSet
from sinks.rows import rows_of
from sinks.tables import Message, tables
from steersman.codec import Codec
from steersman.dead_letter import read_failure
from steersman.redaction import Redactor
from steersman.topics import Topics
from streams.topics import create_topics
from tests.doors.payloads import SPAN, TRACE, many, pairs, request
from tests.doors.served import Served

CODEC = Codec("trace_event")
CHAT = {"gen_ai.operation.name": "chat"}
OURS = request(CHAT, span="a" * 16)
THEIRS = request({**CHAT, "steersman.tenant": "globex"}, span="b" * 16)
PROTOBUF, JSON = {"Content_Type": "application/x-protobuf"}, {"Content_Type": "application/json"}
TOKENS = {"token-of-acme-123": "acme"}
WHO = {"Authorization": "Bearer token-of-acme-123"}


def intake(**rules: Any) -> Intake:
    return Intake("t", CODEC, Rules(**rules), max_spans=10, dead_letter_topic="dead")


def test_a_span_that_names_its_sender_is_like_any_other() -> None:
    for named in ("acme", ""):
        taken = intake().spans(
            request({**CHAT, "steersman.tenant": named}, resource={"steersman.tenant": named}).SerializeToString(),
            "acme",
            named=named,
        )
        assert (len(taken.records), taken.letters) == (1, [])


@pytest.mark.parametrize(
    ("spans", "named"),
    [
        (THEIRS, ""),
        (request(CHAT, resource={"steersman.tenant": "globex"}), ""),
        (request({**CHAT, "steersman.tenant": 7}), ""),
        (request(CHAT), "globex"),
        (request({**CHAT, "steersman.tenant": "acme"}, resource={"steersman.tenant": "globex"}), "acme"),
    ],
)
def test_whoever_names_another_tenant_is_turned_away_with_a_letter(spans: Any, named: str) -> None:
    with pytest.raises(TenantMismatch, match="let in as 'acme'") as refused:
        intake().spans(spans.SerializeToString(), "acme", named=named)
    assert (refused.value.status, refused.value.reason) == (403, "tenant_mismatch")
    (letter,) = refused.value.letters
    failure = read_failure(letter.headers)
    assert (letter.topic, failure.stage, failure.reason) == ("dead", "VALIDATE", "tenant_mismatch")
    event = CODEC.decode(letter.value or b"")
    assert (event["tenant"], event["trace_id"]) == ("acme", TRACE), "under the sender's tenant, never the one named"


def test_the_rest_of_a_request_is_taken_and_its_answer_names_the_span() -> None:
    mixed = many(OURS, THEIRS)
    taken = intake().spans(mixed.SerializeToString(), "acme")
    assert [CODEC.decode(r.value or b"")["span_id"] for r in taken.records] == ["a" * 16]
    assert [CODEC.decode(r.value or b"")["span_id"] for r in taken.letters] == ["b" * 16]
    assert (taken.mapped.taken, taken.mapped.refused) == (1, 1)
    assert "tenant_mismatch: span 'chat gpt-4o' (bbbbbbbbbbbbbbbb) names tenant 'globex'" in taken.mapped.problems[0]


def test_evaluations_among_logs_too() -> None:
    logs = ExportLogsServiceRequest()
    by_resource = logs.resource_logs.add()
    by_resource.resource.attributes.extend(pairs({"steersman.tenant": "globex"}))
    by_resource.scope_logs.add().log_records.add(
        event_name="gen_ai.evaluation.result", trace_id=bytes.fromhex(TRACE), span_id=bytes.fromhex(SPAN),
        time_unix_nano=1_700_000_000_000_000_000,
        attributes=pairs({"gen_ai.evaluation.name": "ok", "gen_ai.evaluation.score.value": 1.0}),
    )  # fmt: skip
    with pytest.raises(TenantMismatch) as refused:
        intake().logs(logs.SerializeToString(), "acme")
    assert len(refused.value.letters) == 1
    assert len(intake().logs(logs.SerializeToString(), "globex").records) == 1


def test_feedback_is_taken_all_or_none_and_content_stays_out_of_letters() -> None:
    items = [{"trace_id": TRACE, "value": 1, "tenant": "acme"}, {"trace_id": TRACE, "value": 0, "tenant": "globex",
             "comment": "a secret word"}]  # fmt: skip
    with pytest.raises(TenantMismatch, match="item 1 names tenant 'globex'") as refused:
        intake().feedback(json.dumps(items).encode(), "acme")
    (letter,) = refused.value.letters
    assert b"secret" not in (letter.value or b"")
    assert CODEC.decode(letter.value or b"")["value"] == 0
    with pytest.raises(TenantMismatch):
        intake().feedback(json.dumps(items[0]).encode(), "acme", named="globex")
    assert len(intake().feedback(json.dumps(items[0]).encode(), "acme", named="acme").records) == 1


def test_letters_are_redacted_as_events_are() -> None:
    secret, redactor = "sk-ant-api03-" + "aB3" * 12, Redactor()
    span = request({**CHAT, "steersman.tenant": secret, "error.message": f"key {secret}"}, name=f"chat {secret}")
    said = [{"trace_id": TRACE, "value": 0, "tenant": "globex", "comment": f"use {secret}"}]
    for take in (
        lambda: intake(redactor=redactor).spans(span.SerializeToString(), "acme"),
        lambda: intake(redactor=redactor, capture_content=True).feedback(json.dumps(said).encode(), "acme"),
    ):
        with pytest.raises(TenantMismatch) as refused:
            take()
        (letter,) = refused.value.letters
        kept = [letter.value or b"", *(value for _, value in letter.headers if isinstance(value, bytes))]
        assert not any(secret.encode() in part for part in kept)
    with pytest.raises(TenantMismatch) as refused:
        intake().spans(span.SerializeToString(), "acme")
    assert any(secret.encode() in (value or b"") for _, value in refused.value.letters[0].headers), "the control"


def test_a_letter_without_a_source_is_a_row_of_its_own_under_its_sender() -> None:
    """Letters of one hour that all named no record would be one row, the last, if that were their key."""
    (letter,) = intake().spans(many(OURS, THEIRS).SerializeToString(), "acme").letters
    table = next(t for t in tables(Topics()) if t.name == "dead_letters")
    messages = [Message(table.topic, 0, n, letter.key, letter.value, tuple(letter.headers), 1) for n in (5, 6)]
    made = [table.row(message) for message in messages]  # type: ignore[attr-defined]
    assert [(row["tenant"], row["reason"], row["error_offset"]) for row in made] == [
        ("acme", "tenant_mismatch", 5), ("acme", "tenant_mismatch", 6),
    ]  # fmt: skip
    assert rows_of(table, messages)[1] == []


@pytest.fixture
def topics(broker: Broker) -> Topics:
    made = Topics(f"tenancy{time.time_ns()}")
    create_topics(broker.bootstrap, made, 1)
    return made


def letters(broker: Broker, topic: str, count: int) -> list[Any]:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": topic, "log_level": 0})
    found: list[Any] = []
    deadline = time.monotonic() + 30
    try:
        parts = len(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, n, OFFSET_BEGINNING) for n in range(parts)])
        while len(found) < count and time.monotonic() < deadline:
            found += [m for m in consumer.consume(10, 0.2) if m.error() is None]
    finally:
        consumer.close()
    assert len(found) == count
    return found


def test_over_http_the_answer_tells_and_kafka_has_the_letter(broker: Broker, topics: Topics) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    dead = f"{topics.trace}-dead"
    admin.create_topics([NewTopic(dead, num_partitions=1, replication_factor=1)])[dead].result(20)
    publisher = Publisher(broker.bootstrap, max_waiting=1000, timeout_s=10)
    served = Served(publisher, topics.trace, tokens=TOKENS)
    try:
        status, _, reply = served.post("/v1/traces", many(OURS, THEIRS).SerializeToString(), **PROTOBUF, **WHO)
        partial = ExportTraceServiceResponse.FromString(reply).partial_success
        assert (status, partial.rejected_spans) == (200, 1)
        assert "tenant_mismatch" in partial.error_message
        status, _, reply = served.post(
            "/v1/traces", OURS.SerializeToString(), **PROTOBUF, **WHO, X_Steersman_Tenant="x"
        )
        assert (status, b"tenant_mismatch" in reply) == (403, True)
        body = json.dumps({"trace_id": TRACE, "value": 1, "tenant": "globex"}).encode()
        status, _, reply = served.post("/v1/feedback", body, **JSON, **WHO)
        assert (status, json.loads(reply)["reason"]) == (403, "tenant_mismatch")
        found = letters(broker, dead, 3)
        assert {read_failure(m.headers()).reason for m in found} == {"tenant_mismatch"}
        assert [CODEC.decode(m.value())["tenant"] for m in found] == ["acme"] * 3
        for door, count in (("traces", 2), ("feedback", 1)):
            assert served.count("steersman_door_refusals_total", door=door, reason="tenant_mismatch") == count
        assert [CODEC.decode(m.value())["span_id"] for m in letters(broker, topics.trace, 1)] == ["a" * 16]
    finally:
        served.close()
        publisher.close(10)


def test_a_record_of_the_collector_that_names_another_tenant_is_kept_as_it_came(broker: Broker, topics: Topics) -> None:
    publisher, counting = Publisher(broker.bootstrap, max_waiting=1000, timeout_s=10), Counting(MetricSet("doors"))
    taker = Intake(topics.trace, CODEC, Rules(), max_spans=10, dead_letter_topic=topics.dead_letter)
    otlp = f"{topics.prefix}-otlp"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(otlp, num_partitions=1, replication_factor=1)])[otlp].result(20)
    door = TopicDoor(
        broker.bootstrap, otlp, topics.prefix, dead_letter_topic=topics.dead_letter, intake=taker, publisher=publisher,
        counting=counting, health=Health(), tenant="acme", session_timeout_s=1.0,
    )  # fmt: skip
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    mixed = many(OURS, THEIRS).SerializeToString()
    producer.produce(otlp, mixed)
    producer.produce(otlp, THEIRS.SerializeToString())
    assert producer.flush(20) == 0
    door.start()
    try:
        found = letters(broker, topics.dead_letter, 2)
        failures = [read_failure(m.headers()) for m in found]
        assert {(f.topic, f.stage, f.reason) for f in failures} == {(otlp, "VALIDATE", "tenant_mismatch")}
        assert {m.value() for m in found} == {mixed, THEIRS.SerializeToString()}
        assert [CODEC.decode(m.value())["span_id"] for m in letters(broker, topics.trace, 1)] == ["a" * 16]
    finally:
        door.close(20)
        assert publisher.close(10) == 0


def test_a_tenant_that_asks_too_often_is_told_when_to_come_again(no_kafka: Publisher) -> None:
    limits = Limits(body=1 << 16, inflated=1 << 16, requests=8, timeout_s=5.0, per_s=0.5)
    served = Served(no_kafka, "none", tokens=TOKENS, limits=limits)
    try:
        answers = [served.post("/v1/feedback", b"{}", **JSON, **WHO) for _ in range(3)]
        assert [status for status, _, _ in answers] == [400, 429, 429]
        assert answers[1][1]["retry-after"] == "2"
        assert json.loads(answers[1][2])["reason"] == "rate"
        wrong = [served.post("/v1/feedback", b"{}", **JSON, Authorization="Bearer wrong") for _ in range(22)]
        assert [status for status, _, _ in wrong] == [401] * 20 + [429] * 2
        assert int(wrong[-1][1]["retry-after"]) >= 1
    finally:
        served.close()


@pytest.fixture
def no_kafka() -> Any:
    publisher = Publisher("127.0.0.1:1", max_waiting=4, timeout_s=0.5)
    yield publisher
    publisher.close(0.1)
