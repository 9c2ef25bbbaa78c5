"""Secrets planted in what services send to the doors: attributes and events of OTLP spans, evaluations, feedback as JSON, broken bodies."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.doors.payloads import any_value, pairs, request
from tests.trust.canaries import Canary

AGENT = "otlp-canary"
TOOL = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}


class Bodies:
    """Makes the bodies; each has a trace of its own."""

    def __init__(self) -> None:
        self._n = 0

    def _span(self, attributes: dict[str, Any] | None = None, **rest: Any) -> ExportTraceServiceRequest:
        self._n += 1
        rest.setdefault("resource", {"service.name": AGENT})
        return request(TOOL | (attributes or {}), trace=f"{self._n:032x}", span=f"{self._n:016x}", parent="", **rest)

    def attribute(self, text: str) -> ExportTraceServiceRequest:
        return self._span({"db.query.text": f"SELECT 1 -- {text}", "http.url": f"see {text}"})

    def nested(self, text: str) -> ExportTraceServiceRequest:
        return self._span(
            {"app.note": {"a": [1, {"b": json.dumps({"c": f"({text})"})}]}, "app.list": [f"x {text}", "y"]}
        )

    def content(self, text: str) -> ExportTraceServiceRequest:
        return self._span(
            {
                "gen_ai.tool.call.arguments": json.dumps({"body": f"please use {text}"}),
                "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": f"hi {text}"}]}]),
            }
        )  # fmt: skip

    def key(self, text: str) -> ExportTraceServiceRequest:
        return self._span({text: 1, "app.headers": {text: "x"}})

    def name(self, text: str) -> ExportTraceServiceRequest:
        return self._span(
            {"gen_ai.tool.name": f"GET {text}", "gen_ai.conversation.id": f"s {text}"}, name=f"call {text}"
        )

    def status(self, text: str) -> ExportTraceServiceRequest:
        return self._span({"error.type": f"Failed {text}"}, status=2, message=f"401 from upstream: {text}")

    def exception(self, text: str) -> ExportTraceServiceRequest:
        raised = {"exception.type": f"ValueError {text}", "exception.message": f"key {text}"}
        return self._span(status=2, events=[("exception", raised), ("log", {"message": f"got {text}"})])

    def evaluation(self, text: str) -> ExportTraceServiceRequest:
        found = {
            "gen_ai.evaluation.name": "quality", "gen_ai.evaluation.score.value": 0.5,
            "gen_ai.evaluation.score.label": f"by {text}", "gen_ai.evaluation.explanation": f"she said {text}, twice",
        }  # fmt: skip
        return self._span(events=[("gen_ai.evaluation.result", found)])

    def resource(self, text: str) -> ExportTraceServiceRequest:
        return self._span(resource={"service.name": AGENT, "service.version": f"1 {text}", "host.name": text})

    def logs(self, text: str) -> ExportLogsServiceRequest:
        self._n += 1
        made = ExportLogsServiceRequest()
        record = made.resource_logs.add().scope_logs.add().log_records.add(
            time_unix_nano=1_700_000_000_000_000_000, trace_id=self._n.to_bytes(16, "big"), event_name="gen_ai.evaluation.result"
        )  # fmt: skip
        record.body.CopyFrom(any_value(f"said {text}"))
        found = {
            "gen_ai.evaluation.name": "quality",
            "gen_ai.evaluation.score.value": 1.0,
            "gen_ai.evaluation.explanation": text,
        }
        record.attributes.extend(pairs(found))
        return made

    def feedback(self, text: str) -> bytes:
        self._n += 1
        item = {
            "trace_id": f"{self._n:032x}", "value": 1, "comment": f"she said {text}", "label": f"l {text}"[:256],
            "correction": {"better": [text]}, "id": f"f {self._n}",
        }  # fmt: skip
        return json.dumps([item]).encode()

    def refused(self, text: str) -> bytes:
        self._n += 1
        return json.dumps({"trace_id": f"{self._n:032x}", "value": [text], text: 1, "comment": text}).encode()

    def broken(self, text: str) -> bytes:
        return b"\x0a\x7f" + text.encode()


DOORS: tuple[str, ...] = (
    "attribute", "nested", "content", "key", "name", "status", "exception", "evaluation", "resource", "logs", "feedback", "refused",
    "broken",
)  # fmt: skip
_NO_EVENT = ("refused", "broken")


def bodies(canaries: list[Canary]) -> Iterator[tuple[str, str, str, bytes]]:
    """Name of the door, path, content type and body for each canary: the doors in turn, binary and JSON in turn."""
    made = Bodies()
    for i, canary in enumerate(canaries):
        name = DOORS[(i + i // len(DOORS)) % len(DOORS)]
        make: Callable[[str], Any] = getattr(made, name)
        body = make(canary.text)
        if isinstance(body, bytes):
            path, kind = (
                ("/v1/traces", "application/x-protobuf") if name == "broken" else ("/v1/feedback", "application/json")
            )
            yield name, path, kind, body
            continue
        path = "/v1/logs" if isinstance(body, ExportLogsServiceRequest) else "/v1/traces"
        if i % 2:
            yield name, path, "application/x-protobuf", body.SerializeToString()
        else:
            yield name, path, "application/json", otlp_json(body)


def otlp_json(message: Any) -> bytes:
    """OTLP's JSON form: ids are hex digits."""
    made = json_format.MessageToDict(message, use_integers_for_enums=True)

    def hexed(node: Any) -> Any:
        if isinstance(node, list):
            return [hexed(one) for one in node]
        if isinstance(node, dict):
            return {k: _hex(v) if k in ("traceId", "spanId", "parentSpanId") else hexed(v) for k, v in node.items()}
        return node

    return json.dumps(hexed(made)).encode()


def _hex(value: str) -> str:

    return base64.b64decode(value).hex()


def plant(url: str, canaries: list[Canary]) -> tuple[Counter[str], int]:
    """Post each to the doors: how many went through each, and how many were accepted."""
    through: Counter[str] = Counter()
    accepted = 0
    for name, path, kind, body in bodies(canaries):
        status = _post(urllib.request.Request(url + path, body, {"Content-Type": kind}, method="POST"))
        assert status == (400 if name in _NO_EVENT else 200), (name, status)
        accepted += status == 200
        through[name] += 1
    return through, accepted


def _post(asked: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
