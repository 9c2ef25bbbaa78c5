"""Bodies of OTLP requests to messages: binary protobuf, and JSON by the rules of the OTLP specification. Pure.

The JSON form is protobuf's own with three differences (OTLP 1.x, "JSON Protobuf Encoding"): trace and span ids are hex digits,
enums are numbers, unknown fields are ignored.
"""

from __future__ import annotations

import base64
import json
from typing import Any, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from doors.refused import Refused

M = TypeVar("M")

_ID_FIELDS = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")
_MAX_DEPTH = 64
_CHILDREN = {
    "resourceSpans", "resource_spans", "scopeSpans", "scope_spans", "spans", "links",
    "resourceLogs", "resource_logs", "scopeLogs", "scope_logs", "logRecords", "log_records",
}  # fmt: skip


def decode_protobuf(body: bytes, kind: type[M]) -> M:
    """Decode a binary message.

    Raises
    ------
    Refused
        400, ``bad_protobuf``: the bytes are no message of that kind, or end in the middle of one.
    """
    message: Any = kind()
    try:
        message.ParseFromString(body)
    except (DecodeError, RuntimeError) as error:
        raise Refused(400, "bad_protobuf", f"the body of {len(body)} bytes is no {kind.__name__}: {error}") from error
    return cast(M, message)


def decode_json(body: bytes, kind: type[M]) -> M:
    """Decode a message in OTLP's JSON form.

    Raises
    ------
    Refused
        400, ``bad_json``: the body is no JSON, or not of that form; the message says where.
    """
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "bad_json", f"the body is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise Refused(400, "bad_json", f"the body is a JSON {type(parsed).__name__}, not an object")
    message: Any = kind()
    try:
        _hex_to_base64(parsed)
        json_format.ParseDict(parsed, message, ignore_unknown_fields=True, max_recursion_depth=_MAX_DEPTH)
    except (json_format.Error, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(400, "bad_json", f"the body is no {kind.__name__} in JSON: {error}"[:500]) from error
    return cast(M, message)


def decode(body: bytes, kind: type[M]) -> M:
    """Decode a message in either form, told apart by the first byte: no message begins as a JSON object does."""
    return decode_json(body, kind) if body[:64].lstrip()[:1] == b"{" else decode_protobuf(body, kind)


def to_json(message: Message) -> bytes:
    """Encode a reply in OTLP's JSON form; replies hold no ids."""
    return json.dumps(json_format.MessageToDict(message)).encode()


def _hex_to_base64(node: Any) -> None:
    """Write ids as protobuf's JSON wants them. One that is not hex becomes empty, and its span alone is refused later."""
    if isinstance(node, list):
        for item in node:
            _hex_to_base64(item)
    elif isinstance(node, dict):
        for name in _ID_FIELDS:
            if name in node:
                node[name] = _recoded(node[name])
        for name in _CHILDREN & node.keys():
            _hex_to_base64(node[name])


def _recoded(value: Any) -> str:
    try:
        return base64.b64encode(bytes.fromhex(value)).decode()
    except (ValueError, TypeError):
        return ""
