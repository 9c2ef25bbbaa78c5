"""OTLP requests for tests, written as emitters of every generation write them."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = "00f067aa0ba902b7"
START_NS, END_NS = 1_700_000_000_000_000_123, 1_700_000_001_500_000_456


def any_value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=pairs(value)))
    return AnyValue() if value is None else AnyValue(string_value=value)


def pairs(attributes: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=name, value=any_value(value)) for name, value in attributes.items()]


def request(
    attributes: dict[str, Any] | None = None,
    *,
    name: str = "chat gpt-4o",
    trace: str = TRACE,
    span: str = SPAN,
    parent: str = PARENT,
    start: int = START_NS,
    end: int = END_NS,
    status: int = 0,
    message: str = "",
    events: list[tuple[str, dict[str, Any]]] | None = None,
    resource: dict[str, Any] | None = None,
) -> ExportTraceServiceRequest:
    """A request of one span."""
    made = ExportTraceServiceRequest()
    by_resource = made.resource_spans.add()
    by_resource.resource.attributes.extend(pairs({"service.name": "research"} if resource is None else resource))
    by_scope = by_resource.scope_spans.add()
    by_scope.scope.name = "tests"
    one = by_scope.spans.add(
        trace_id=bytes.fromhex(trace),
        span_id=bytes.fromhex(span),
        parent_span_id=bytes.fromhex(parent),
        name=name,
        kind=3,
        start_time_unix_nano=start,
        end_time_unix_nano=end,
    )
    one.attributes.extend(pairs(attributes or {}))
    one.status.code, one.status.message = status, message
    for event_name, found in events or []:
        one.events.add(name=event_name, time_unix_nano=end).attributes.extend(pairs(found))
    return made


def many(*requests: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """One request of the spans of several."""
    made = ExportTraceServiceRequest()
    for one in requests:
        made.resource_spans.extend(one.resource_spans)
    return made
