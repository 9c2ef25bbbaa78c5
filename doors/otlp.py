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


def decode_protobuf(body: bytes, kind: type[M], max_messages: int = 1 << 20) -> M:
    """Decode a binary message.

    Parameters
    ----------
    body
        The bytes.
    kind
        ``ExportTraceServiceRequest`` or ``ExportLogsServiceRequest``.
    max_messages
        Most resources, scopes and spans (or log records) together: an empty one is two bytes here and 180 in memory.

    Raises
    ------
    Refused
        400, ``bad_protobuf``: the bytes are no message of that kind, or end in the middle of one. 413, ``too_many``.
    """
    # Beside messages of the path there are a resource or scope and an address for each of those that hold others.
    if _count(memoryview(body), _PATH, max_messages, [3 * max_messages + 8]) > max_messages:
        raise _too_many(max_messages)
    message: Any = kind()
    try:
        message.ParseFromString(body)
    except (DecodeError, RuntimeError) as error:
        raise Refused(400, "bad_protobuf", f"the body of {len(body)} bytes is no {kind.__name__}: {error}") from error
    return cast(M, message)


def decode_json(body: bytes, kind: type[M], max_messages: int = 1 << 20) -> M:
    """Decode a message in OTLP's JSON form; the parameters are those of `decode_protobuf`.

    Raises
    ------
    Refused
        400, ``bad_json``: the body is no JSON, or not of that form; the message says where. 413, ``too_many``.
    """
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "bad_json", f"the body is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise Refused(400, "bad_json", f"the body is a JSON {type(parsed).__name__}, not an object")
    message: Any = kind()
    try:
        if _hex_to_base64(parsed, max_messages) < 0:
            raise _too_many(max_messages)
        json_format.ParseDict(parsed, message, ignore_unknown_fields=True, max_recursion_depth=_MAX_DEPTH)
    # SystemError: protobuf looks up a name that is no UTF-8, such as half a surrogate pair, and forgets to clear the exception.
    except (json_format.Error, ValueError, TypeError, AttributeError, RecursionError, SystemError) as error:
        raise Refused(400, "bad_json", f"the body is no {kind.__name__} in JSON: {error}"[:500]) from error
    return cast(M, message)


def decode(body: bytes, kind: type[M], max_messages: int = 1 << 20) -> M:
    """Decode a message in either form, told apart by the first byte: no message begins as a JSON object does."""
    how = decode_json if body[:64].lstrip()[:1] == b"{" else decode_protobuf
    return how(body, kind, max_messages)


def to_json(message: Message) -> bytes:
    """Encode a reply in OTLP's JSON form; replies hold no ids."""
    return json.dumps(json_format.MessageToDict(message)).encode()


def _hex_to_base64(node: Any, budget: int) -> int:
    """Write ids as protobuf's JSON wants them, and return what is left of the messages that may come.

    An id that is not hex becomes empty, and its span alone is refused later.
    """
    if isinstance(node, list):
        budget -= len(node)
        for item in node:
            if budget < 0:
                break
            budget = _hex_to_base64(item, budget)
    elif isinstance(node, dict):
        for name in _ID_FIELDS:
            if name in node:
                node[name] = _recoded(node[name])
        for name in _CHILDREN & node.keys():
            budget = _hex_to_base64(node[name], budget)
    return budget


def _too_many(limit: int) -> Refused:
    return Refused(
        413, "too_many", f"more than {limit} resources, scopes and spans in one request: send smaller batches"
    )


_PATH = (1, 2, 2)
"""Field numbers of resources, scopes, and spans or log records, each in the one before."""


def _count(body: memoryview, path: tuple[int, ...], limit: int, left: list[int]) -> int:
    """Count the messages on a path of fields, up to just above the limit; what is no protobuf is for the parser to say.

    `left` has how many fields may come, whatever they are: two bytes are a field, and looking at it costs half a microsecond.

    Source: protobuf's "Encoding": a tag is (number << 3 | wire type), wire types are varint, 64 bits, length-delimited, 32 bits.
    """
    count = at = 0
    while at < len(body) and count <= limit:
        left[0] -= 1
        if left[0] < 0:
            return limit + 1
        tag, at = _varint(body, at)
        wire = tag & 7
        if wire == 2:
            size, at = _varint(body, at)
            if tag >> 3 == path[0]:
                count += 1
                if len(path) > 1:
                    count += _count(body[at : at + size], path[1:], limit - count, left)
            at += size
        elif wire == 0:
            _, at = _varint(body, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            break
    return count


def _varint(body: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(body) and shift < 64:
        byte = body[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
    return value, at


def _recoded(value: Any) -> str:
    try:
        return base64.b64encode(bytes.fromhex(value)).decode()
    except (ValueError, TypeError):
        return ""
