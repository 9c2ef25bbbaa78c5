"""Bodies: both forms of a message are the same message, and nothing else is one."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from google.protobuf.json_format import MessageToDict, MessageToJson
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from doors.otlp import decode, decode_json, decode_protobuf
from doors.refused import Refused
from tests.doors.payloads import PARENT, SPAN, TRACE, many, request

SPANS = request({"a": 1, "b": [1.5, "x", {"c": True}], "d": b"\x00\xff"}, status=2)
# As the specification has it: ids in hex, 64-bit integers as text or numbers, enums as numbers, unknown fields ignored.
AS_JSON = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "research"}}]},
            "scopeSpans": [
                {
                    "scope": {"name": "tests"},
                    "spans": [
                        {
                            "traceId": TRACE.upper(),
                            "spanId": SPAN,
                            "parentSpanId": PARENT,
                            "name": "chat gpt-4o",
                            "kind": 3,
                            "startTimeUnixNano": "1700000000000000123",
                            "endTimeUnixNano": 1700000001500000456,
                            "attributes": [
                                {"key": "a", "value": {"intValue": "1"}},
                                {
                                    "key": "b",
                                    "value": {
                                        "arrayValue": {
                                            "values": [
                                                {"doubleValue": 1.5},
                                                {"stringValue": "x"},
                                                {
                                                    "kvlistValue": {
                                                        "values": [{"key": "c", "value": {"boolValue": True}}]
                                                    }
                                                },
                                            ]
                                        }
                                    },
                                },
                                {"key": "d", "value": {"bytesValue": "AP8="}},
                            ],
                            "status": {"code": 2},
                            "aFieldOfTomorrow": {"x": 1},
                        }
                    ],
                }
            ],
        }
    ]
}


def test_json_is_the_same_message_as_protobuf() -> None:
    assert decode_json(json.dumps(AS_JSON).encode(), ExportTraceServiceRequest) == SPANS
    assert decode_protobuf(SPANS.SerializeToString(), ExportTraceServiceRequest) == SPANS


def test_the_form_shows_in_the_first_byte() -> None:
    for body in (b"  \n" + json.dumps(AS_JSON).encode(), SPANS.SerializeToString()):
        assert decode(body, ExportTraceServiceRequest) == SPANS


def test_an_id_that_is_no_hex_costs_its_span_only() -> None:
    for bad in (
        "not hex",
        5,
        None,
        [],
        MessageToDict(SPANS)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"],
    ):
        broken = json.loads(json.dumps(AS_JSON))
        broken["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"] = bad
        decoded = decode_json(json.dumps(broken).encode(), ExportTraceServiceRequest)
        assert decoded.resource_spans[0].scope_spans[0].spans[0].trace_id == b""


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b'"x"', b"{", b'{"resourceSpans": 5}', b'{"resourceSpans": [5]}', b"\xff\xfe", b"[" * 100_000,
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "yesterday"}]}]}]}',
        b'{"resourceSpans": ' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"resourceSpans": [{"\\ud800": 1}]}',
    ],
)  # fmt: skip
def test_what_is_no_json_of_that_form_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        decode_json(body, ExportTraceServiceRequest)
    assert (caught.value.status, caught.value.reason) == (400, "bad_json")


def test_half_a_protobuf_is_refused() -> None:
    whole = SPANS.SerializeToString()
    refused = 0
    for end in range(1, len(whole)):
        with pytest.raises(Refused) as caught:
            decode_protobuf(whole[:end], ExportTraceServiceRequest)
        refused += 1
        assert (caught.value.status, caught.value.reason) == (400, "bad_protobuf")
    assert refused > 100


def test_deep_nesting_is_refused_and_hurts_nobody() -> None:
    def nested(tag: bytes, inner: bytes) -> bytes:
        size, length = len(inner), b""
        while size > 127:
            size, length = size >> 7, length + bytes([size & 127 | 128])
        return tag + length + bytes([size]) + inner

    value = b"\x0a\x01x"  # AnyValue.string_value
    for _ in range(20_000):
        value = nested(b"\x2a", nested(b"\x0a", value))  # AnyValue.array_value, ArrayValue.values
    attribute = nested(b"\x4a", b"\x0a\x01k" + nested(b"\x12", value))  # Span.attributes, KeyValue.value
    body = nested(b"\x0a", nested(b"\x12", nested(b"\x12", attribute)))
    with pytest.raises(Refused) as caught:
        decode_protobuf(body, ExportTraceServiceRequest)
    assert caught.value.status == 400


def test_messages_are_counted_before_they_take_memory() -> None:
    """16 MiB of empty spans would be 1.4 GB; an empty one is two bytes."""
    whole = [SPANS, many(*[request() for _ in range(3)])]
    for message, count in zip(whole, (3, 9), strict=True):
        body = message.SerializeToString()
        as_json = MessageToJson(message).encode()
        for how, form in ((decode_protobuf, body), (decode_json, as_json)):
            how(form, ExportTraceServiceRequest, count)
            with pytest.raises(Refused) as caught:
                how(form, ExportTraceServiceRequest, count - 1)
            assert (caught.value.status, caught.value.reason) == (413, "too_many")
    bomb = b"\x0a\x84\x80\x80\x02\x12\x80\x80\x80\x02" + b"\x12\x00" * (2 << 20)
    fields = bytes(4 << 20), b"\x08\x00" * (2 << 20), b"\x0a\x80\x80\x80\x02" + b"\x10\x01" * (2 << 20)
    for body in (bomb, *fields, b"\x0a\x00" * (2 << 20), b'{"resourceSpans": [' + b"{}," * (1 << 20) + b"{}]}"):
        tracemalloc.start()
        with pytest.raises(Refused, match="more than 300 "):
            decode(body, ExportTraceServiceRequest, 300)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < (1 << 16 if body[:1] != b"{" else 32 * len(body))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.binary(max_size=4))
def test_garbage_is_a_message_or_refused(garbage: bytes, place: int, patch: bytes) -> None:
    whole = SPANS.SerializeToString()
    for body in (garbage, whole[:place] + patch + whole[place + len(patch) :]):
        for how in (decode_protobuf, decode_json, decode):
            try:
                how(body, ExportTraceServiceRequest)
            except Refused as error:
                assert error.status == 400  # noqa: PT017
