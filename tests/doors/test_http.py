"""The doors over HTTP: what is answered when, and that nothing anybody sends stops them."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from google.protobuf.json_format import MessageToDict
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from console.brokers import Broker
from console.children import free_port
from doors.http import Limits
from doors.publisher import Publisher, Record
from doors.refused import Refused
from steersman.codec import Codec
from steersman.topics import Topics
from streams.topics import create_topics
from tests.doors.payloads import SPAN, TRACE, many, request
from tests.doors.served import LIMITS, Served, post
from tests.doors.test_otlp import AS_JSON

CODEC = Codec("trace_event")
PROTOBUF = {"Content_Type": "application/x-protobuf"}
JSON = {"Content_Type": "application/json"}
SPANS = request({"gen_ai.operation.name": "chat"}).SerializeToString()
BAD_SPAN = request(trace="00" * 16)


class Trace:
    """The trace topic of a test."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.topic = topic
        config = {"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest", "log_level": 0}
        self._consumer = Consumer(config)
        # Assigned, not subscribed: a group of its own would take the embedded broker half a session to form.
        self._consumer.assign([TopicPartition(topic, n, OFFSET_BEGINNING) for n in range(2)])

    def events(self, count: int, timeout_s: float = 30) -> list[dict[str, Any]]:
        """The next so many events."""
        found: list[dict[str, Any]] = []
        deadline = time.monotonic() + timeout_s
        while len(found) < count and time.monotonic() < deadline:
            for message in self._consumer.consume(count - len(found), 0.2):
                assert message.error() is None, message.error()
                event = CODEC.decode(message.value())
                assert message.key() == event["trace_id"].encode()
                found.append(event)
        assert len(found) == count
        return found

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture(scope="module")
def topic(broker: Broker) -> str:
    topics = Topics(f"doors{time.time_ns()}")
    create_topics(broker.bootstrap, topics, 2)
    return topics.trace


@pytest.fixture(scope="module")
def trace(broker: Broker, topic: str) -> Iterator[Trace]:
    reading = Trace(broker.bootstrap, topic)
    yield reading
    reading.close()


@pytest.fixture(scope="module")
def publisher(broker: Broker) -> Iterator[Publisher]:
    made = Publisher(broker.bootstrap, max_waiting=1000, timeout_s=10)
    yield made
    assert made.close(10) == 0


@pytest.fixture(scope="module")
def doors(publisher: Publisher, topic: str) -> Iterator[Served]:
    served = Served(publisher, topic)
    yield served
    served.close()


@pytest.fixture
def no_kafka() -> Iterator[Publisher]:
    """A publisher whose Kafka is not there."""
    made = Publisher(f"127.0.0.1:{free_port()}", max_waiting=4, timeout_s=1.5)
    yield made
    made.close(0)


def test_protobuf_json_and_encodings_all_arrive(doors: Served, trace: Trace) -> None:
    as_json = json.dumps(AS_JSON).encode()
    bodies = [
        (SPANS, PROTOBUF),
        (gzip.compress(SPANS), {**PROTOBUF, "Content_Encoding": "gzip"}),
        (gzip.compress(SPANS[:20]) + gzip.compress(SPANS[20:]), {**PROTOBUF, "Content_Encoding": "GZIP"}),
        (zlib.compress(SPANS), {**PROTOBUF, "Content_Encoding": "deflate"}),
        (as_json, JSON),
        (gzip.compress(as_json), {"Content_Type": "application/json; charset=utf-8", "Content_Encoding": "gzip"}),
    ]
    for body, headers in bodies:
        status, answer, reply = doors.post("/v1/traces", body, **headers)
        assert (status, answer["content-type"].partition(";")[0]) == (200, headers["Content_Type"].partition(";")[0])
        assert reply == (b"{}" if "json" in headers["Content_Type"] else b"")
    events = trace.events(len(bodies))
    assert {event["trace_id"] for event in events} == {TRACE}
    assert len({event["event_id"] for event in events}) == 1, "one span, sent six times"


def test_partial_success_says_which_spans_were_left_out(doors: Served, trace: Trace) -> None:
    body = many(BAD_SPAN, request(), BAD_SPAN).SerializeToString()
    status, _, reply = doors.post("/v1/traces", body, **PROTOBUF)
    answer = ExportTraceServiceResponse.FromString(reply)
    assert (status, answer.partial_success.rejected_spans) == (200, 2)
    assert "trace_id" in answer.partial_success.error_message
    trace.events(1)
    status, _, reply = doors.post("/v1/traces", BAD_SPAN.SerializeToString(), **PROTOBUF)
    assert (status, "none of the spans can be used" in Status.FromString(reply).message) == (400, True)
    assert doors.post("/v1/traces", b"", **PROTOBUF)[0] == 200, "no spans are fine"


def test_feedback_and_evaluations(doors: Served, trace: Trace) -> None:
    feedback = [{"trace_id": TRACE, "value": 1, "id": "a"}, {"decision_id": f"{TRACE}-{SPAN}", "value": "good"}]
    for _ in range(2):
        status, _, reply = doors.post("/v1/feedback", json.dumps(feedback).encode(), **JSON)
        assert (status, json.loads(reply)["accepted"]) == (200, 2)
    events = trace.events(4)
    assert len({event["event_id"] for event in events}) == 3
    assert json.loads(reply)["event_ids"][0] in {event["event_id"] for event in events}
    log = {
        "eventName": "gen_ai.evaluation.result",
        "traceId": TRACE,
        "spanId": SPAN,
        "timeUnixNano": "1700000000000000000",
    }
    log["attributes"] = [  # type: ignore[assignment]
        {"key": "gen_ai.evaluation.name", "value": {"stringValue": "relevance"}},
        {"key": "gen_ai.evaluation.score.value", "value": {"doubleValue": 0.5}},
    ]
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [log, {"body": {"stringValue": "hello"}}]}]}]}
    assert doors.post("/v1/logs", json.dumps(logs).encode(), **JSON)[0] == 200
    (event,) = trace.events(1)
    assert (event["metric"], event["value"], event["target_span_id"]) == ("relevance", 0.5, SPAN)


def refusals() -> list[Any]:
    huge = gzip.compress(b"\0" * (4 << 20))
    assert len(huge) < LIMITS.body
    whole = request()
    one = whole.resource_spans[0].scope_spans[0].spans
    one.extend([one[0]] * 100)
    spans = whole.SerializeToString()
    gzipped = {**PROTOBUF, "Content_Encoding": "gzip"}
    return [
        pytest.param("/v1/traces", b"garbage", PROTOBUF, 400, "ExportTraceServiceRequest", id="garbage"),
        pytest.param("/v1/traces", SPANS[:-3], PROTOBUF, 400, "ExportTraceServiceRequest", id="half a message"),
        pytest.param("/v1/traces", json.dumps(AS_JSON).encode()[:-9], JSON, 400, "no JSON", id="half a JSON"),
        pytest.param("/v1/traces", gzip.compress(SPANS)[:-9], gzipped, 400, "ends inside its gzip", id="half a gzip"),
        pytest.param("/v1/traces", SPANS, gzipped, 400, "not gzip", id="no gzip"),
        pytest.param(
            "/v1/traces", gzip.compress(b"") * 2000, gzipped, 400, "more than 16 gzip frames", id="many frames"
        ),
        pytest.param("/v1/traces", SPANS, {**PROTOBUF, "Content_Encoding": "br"}, 415, "'br' is unknown", id="brotli"),
        pytest.param("/v1/traces", huge, gzipped, 413, "262144 bytes decompressed", id="gzip bomb"),
        pytest.param("/v1/traces", b"\0" * (LIMITS.body + 1), PROTOBUF, 413, "65536 bytes", id="too large"),
        pytest.param("/v1/traces", spans, PROTOBUF, 413, "101 spans", id="too many spans"),
        pytest.param("/v1/traces", SPANS, {"Content_Type": "text/plain"}, 415, "text/plain", id="text"),
        pytest.param("/v1/traces", SPANS, {}, 415, "application/octet-stream", id="no type"),
        pytest.param("/v1/traces", SPANS, {**PROTOBUF, "Host": "evil.example"}, 403, "evil.example", id="other host"),
        pytest.param(
            "/v1/traces", SPANS, {**PROTOBUF, "Origin": "http://evil.example"}, 403, "evil.example", id="page"
        ),
        pytest.param("/v1/metrics", b"", JSON, 404, "Not Found", id="no such door"),
        pytest.param("/v1/feedback", b"{}", JSON, 400, "say what is judged", id="empty feedback"),
        pytest.param("/v1/feedback", b"{}", PROTOBUF, 415, "application/json", id="feedback as protobuf"),
        pytest.param("/v1/feedback", b'{"value": 1, "valu": 2}', JSON, 400, "valu: ", id="misspelt"),
    ]


@pytest.mark.parametrize(("path", "body", "headers", "status", "says"), refusals())
def test_refusals_name_the_problem(
    doors: Served, path: str, body: bytes, headers: dict[str, str], status: int, says: str
) -> None:
    answered, _, reply = doors.post(path, body, **headers)
    text = (
        Status.FromString(reply).message
        if headers == PROTOBUF or "x-prot" in str(headers)
        else json.loads(reply)["message"]
    )
    assert answered == status
    assert says in text
    assert doors.post("/v1/traces", b"", **PROTOBUF)[0] == 200


def test_a_get_is_told_what_is_allowed(doors: Served) -> None:
    status, headers, _ = post(doors.url, "/v1/traces", b"", method="GET")
    assert (status, headers["allow"]) == (405, "POST")


def test_bytes_that_are_no_http_and_bodies_that_break_off(doors: Served) -> None:
    head = b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
    for sent in (
        b"\x16\x03\x01\x02garbage\r\n\r\n",
        head + b"Content-Length: 500\r\n\r\nshort",
        head + b"Content-Length: x\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", doors.port), timeout=5) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    assert doors.post("/v1/traces", b"", **PROTOBUF)[0] == 200


def test_a_chunked_body_is_counted_as_it_comes(doors: Served) -> None:
    with socket.create_connection(("127.0.0.1", doors.port), timeout=5) as connection:
        connection.sendall(
            b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"4000\r\n" + b"\0" * 0x4000 + b"\r\n"
        try:
            for _ in range(8):
                connection.sendall(chunk)
        except OSError:
            pass  # it has heard enough
        assert b" 413 " in connection.recv(4096)


def test_tokens(publisher: Publisher, topic: str, trace: Trace) -> None:
    served = Served(publisher, topic, tokens={"token-of-acme-123": "acme", "token-of-other-12": "other"})
    try:
        for bad in ("", "Bearer", "Bearer wrong", "Basic token-of-acme-123", "Bearer token-of-acme-12", "Bearer \xff"):
            status, headers, _ = served.post("/v1/traces", SPANS, Authorization=bad, **PROTOBUF)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
        for token, tenant in (("token-of-acme-123", "acme"), ("token-of-other-12", "other")):
            assert served.post("/v1/traces", SPANS, Authorization=f"Bearer {token}", **PROTOBUF)[0] == 200
            assert trace.events(1)[0]["tenant"] == tenant
        assert served.count("steersman_door_refusals_total", door="traces", reason="token") == 6
    finally:
        served.close()


def test_nothing_is_accepted_that_kafka_has_not(no_kafka: Publisher) -> None:
    """Kafka is away: while too many wait 429 at once, then 503; both say when to come again."""
    served = Served(no_kafka, "none")
    try:
        waiting = no_kafka.publish([Record("none", b"k", b"v")] * 4)
        status, headers, reply = served.post("/v1/traces", SPANS, **PROTOBUF)
        assert (status, headers["retry-after"]) == (429, "2")
        assert "4 events wait for Kafka, 4 may" in Status.FromString(reply).message
        with pytest.raises(Refused, match="did not take"):
            waiting.result(10)
        assert no_kafka.waiting == 0
        status, headers, reply = served.post("/v1/traces", SPANS, **PROTOBUF)
        assert (status, headers["retry-after"]) == (503, "2")
        assert Status.FromString(reply).code == 14
        five = many(*[request(span=f"{n:016x}") for n in range(1, 6)]).SerializeToString()
        status, headers, reply = served.post("/v1/traces", five, **PROTOBUF)
        assert (status, "retry-after" in headers) == (413, False), "more than may ever wait"
        assert served.count("steersman_door_items_total", door="traces", result="taken") == 0
        assert no_kafka.trouble() is not None
    finally:
        served.close()


def test_too_many_requests_at_once(publisher: Publisher, topic: str) -> None:
    served = Served(publisher, topic, limits=Limits(body=1 << 16, inflated=1 << 16, requests=2, timeout_s=1.5))
    head = b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\nContent-Length: 9\r\n\r\nslow"
    try:
        slow = [socket.create_connection(("127.0.0.1", served.port), timeout=10) for _ in range(2)]
        for connection in slow:
            connection.sendall(head)
        deadline = time.monotonic() + 5
        while served.count("steersman_door_requests_in_flight") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        status, headers, _ = served.post("/v1/traces", SPANS, **PROTOBUF)
        assert (status, headers["retry-after"]) == (429, "1")
        for connection in slow:
            assert b" 408 " in connection.recv(4096)
            connection.close()
        assert served.post("/v1/traces", b"", **PROTOBUF)[0] == 200
    finally:
        served.close()


def test_many_clients_at_once(doors: Served, trace: Trace) -> None:
    statuses: list[int] = []

    def send(n: int) -> None:
        for i in range(5):
            statuses.append(
                doors.post("/v1/traces", request(span=f"{n * 10 + i + 1:016x}").SerializeToString(), **PROTOBUF)[0]
            )

    threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 429}
    trace.events(statuses.count(200))


def test_replies_are_what_json_clients_expect(doors: Served) -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 1
    assert MessageToDict(answer) == {"partialSuccess": {"rejectedSpans": "1"}}
    body = json.loads(json.dumps(AS_JSON))
    spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"]
    spans.append({**spans[0], "spanId": "xyz"})
    status, _, reply = doors.post("/v1/traces", json.dumps(body).encode(), **JSON)
    assert (status, json.loads(reply)["partialSuccess"]["rejectedSpans"]) == (200, "1")
