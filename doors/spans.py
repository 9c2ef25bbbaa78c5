"""From OTLP spans to trace events. Pure: the same spans make the same events, wherever and however often they come in.

One span makes one event; a root span also says that its trace is complete (END), and each ``gen_ai.evaluation.result`` on a span
is a FEEDBACK about it. Which attribute means what is in `doors.conventions`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as OtlpStatus

from doors import ids
from doors.conventions import EVALUATION, NAMES, OPERATION_NAMES, OPERATIONS, PROVIDERS, TENANT, is_content
from doors.evaluations import MAX_TS_US, evaluation
from doors.mapped import Mapped, Rules
from doors.tenancy import mismatch
from doors.values import amount, attributes, first, hash_of, number, plain, text
from steersman.errors import InvalidRecord
from steersman.events import STRING_CAPS, Kind, Status
from steersman.ids import is_span_id, is_trace_id

_TOKENS: Final = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
_KEPT: Final = frozenset({"gen_ai.response.model", "llm.response.model", *OPERATION_NAMES})
_READ: Final = frozenset(name for names in NAMES.values() for name in names) - _KEPT
_RESOURCE: Final = (
    "service.name",
    "service.version",
    "service.namespace",
    "deployment.environment.name",
    "deployment.environment",
)


def events_of_spans(request: ExportTraceServiceRequest, rules: Rules) -> Mapped:
    """Map the spans of a request.

    Parameters
    ----------
    request
        Spans by resource and scope.
    rules
        What to make of them.
    """
    out = Mapped(rules.redactor)
    for by_resource in request.resource_spans:
        resource = attributes(by_resource.resource.attributes)
        for by_scope in by_resource.scope_spans:
            scope = {"otel.scope.name": by_scope.scope.name, "otel.scope.version": by_scope.scope.version}
            around = {k: v for k, v in scope.items() if v} | {k: resource[k] for k in _RESOURCE if k in resource}
            for span in by_scope.spans:
                what = f"span {span.name[:80]!r} ({span.span_id.hex() or 'no id'})"
                named = _other_tenant(span.attributes, resource, rules)
                into = Mapped(rules.redactor) if named else out
                try:
                    _span(span, around, rules, into)
                except InvalidRecord as error:
                    out.refuse(f"{what}: {error}")
                else:
                    if named:
                        out.turn_away(into, mismatch(what, named, rules.tenant))
                    else:
                        out.taken += 1
    return out


def events_of_logs(request: ExportLogsServiceRequest, rules: Rules) -> Mapped:
    """Map the evaluations among log records, which is how OpenTelemetry's events travel; other records are passed over."""
    out = Mapped(rules.redactor)
    for by_resource in request.resource_logs:
        resource = attributes(by_resource.resource.attributes)
        for by_scope in by_resource.scope_logs:
            for record in by_scope.log_records:
                found = attributes(record.attributes)
                if EVALUATION not in (record.event_name, found.get("event.name")):
                    out.counters["other_log_records"] += 1
                    continue
                ts = (record.time_unix_nano or record.observed_time_unix_nano) // 1000
                what = f"{EVALUATION} of trace {record.trace_id.hex() or 'none'}"
                named = _other_tenant(record.attributes, resource, rules)
                into = Mapped(rules.redactor) if named else out
                try:
                    evaluation(found, record.trace_id.hex(), record.span_id.hex(), ts, "log", rules, into)
                except InvalidRecord as error:
                    out.refuse(f"{what}: {error}")
                else:
                    if named:
                        out.turn_away(into, mismatch(what, named, rules.tenant))
                    else:
                        out.taken += 1
    return out


def _other_tenant(pairs: Iterable[KeyValue], resource: Mapping[str, Any], rules: Rules) -> str:
    """Return the tenant that is named and is not the sender's; empty when all is well."""
    own = next((plain(pair.value) for pair in pairs if pair.key == TENANT), None)
    said = (own, resource.get(TENANT), rules.named)
    return next((str(named) for named in said if named not in (None, "") and named != rules.tenant), "")


def _span(span: Span, around: Mapping[str, Any], rules: Rules, out: Mapped) -> None:
    trace_id, span_id, parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
    if not is_trace_id(trace_id):
        raise InvalidRecord("trace_id", f"{trace_id!r} is not 16 bytes that are not all zero")
    if not is_span_id(span_id):
        raise InvalidRecord("span_id", f"{span_id!r} is not 8 bytes that are not all zero")
    if parent and not is_span_id(parent):
        raise InvalidRecord("parent_span_id", f"{parent!r} is not 8 bytes that are not all zero")
    ts = span.end_time_unix_nano // 1000
    if not 0 < ts <= MAX_TS_US:
        raise InvalidRecord("end_time_unix_nano", f"{span.end_time_unix_nano} is no time: only ended spans are taken")
    found = attributes(span.attributes)
    kind = _kind(found)
    session = text(first(found, NAMES["session_id"]))
    agent = text(first(found, NAMES["agent"])) or text(around.get("service.name")) or ""
    if kind is not None or rules.keep_other:
        record = _record(span, found, around, kind or Kind.AGENT, rules, out.counters)
        record |= {
            "event_id": ids.event_id("span", trace_id, span_id),
            "tenant": rules.tenant,
            "trace_id": trace_id,
            "span_id": span_id,
            "parent_span_id": parent or None,
            "session_id": session,
            "agent": agent,
            "ts": ts,
        }
        out.add(record)
    if kind is None:
        out.counters["other_spans"] += 1
    for index, event in enumerate(span.events):
        if event.name == EVALUATION:
            at = event.time_unix_nano // 1000 or ts
            try:
                evaluation(attributes(event.attributes), trace_id, span_id, at, str(index), rules, out)
            except InvalidRecord as error:
                out.warn(f"{EVALUATION} on span {span_id}: {error}")
    if not parent and rules.end_at_root:
        out.add(
            {
                "event_id": ids.event_id("end", trace_id),
                "tenant": rules.tenant,
                "trace_id": trace_id,
                "span_id": span_id,
                "session_id": session,
                "agent": agent,
                "kind": Kind.END,
                "ts": ts,
                "status": _outcome(span, found)[0],
            }
        )


def _record(
    span: Span, found: dict[str, Any], around: Mapping[str, Any], kind: Kind, rules: Rules, counters: Counter[str]
) -> dict[str, Any]:
    """Fields that say what the span did."""
    status, error = _outcome(span, found)
    record: dict[str, Any] = {
        "kind": kind,
        "duration_us": _duration(span, counters),
        "status": status,
        "error": error,
        "operation": _operation(span.name, found, kind),
        "provider": _provider(found),
        "truncated": span.dropped_attributes_count > 0,
    }
    record |= {name: amount(first(found, NAMES[name])) for name in _TOKENS}
    if kind is Kind.MODEL_CALL:
        _whole_input(record)
        if record["input_tokens"] is not None:
            record["context_tokens"] = amount(record["input_tokens"] + (record["output_tokens"] or 0))
    if (cost := number(first(found, NAMES["cost_usd"]))) is not None:
        record["cost_micro_usd"] = amount(cost * 1e6)
    if kind in (Kind.TOOL_CALL, Kind.RETRIEVAL) and (arguments := first(found, NAMES["arguments"])) is not None:
        record["args_hash"] = hash_of(arguments)
    record["attributes"] = _rest(span, found, around, record["operation"], rules, counters)
    return record


def _kind(found: Mapping[str, Any]) -> Kind | None:
    """Kind of work, None for a span that is about no model, tool, retrieval or agent."""
    for name in OPERATION_NAMES:
        value = found.get(name)
        if isinstance(value, str) and (kind := OPERATIONS.get(value.lower())) is not None:
            return kind
    for name, kind in (("tool", Kind.TOOL_CALL), ("model", Kind.MODEL_CALL), ("agent", Kind.AGENT)):
        if first(found, NAMES[name]) is not None:
            return kind
    return None


def _operation(span_name: str, found: Mapping[str, Any], kind: Kind) -> str:
    if kind is Kind.MODEL_CALL:
        named = first(found, NAMES["model"][:3]) or _asked_model(found) or first(found, NAMES["model"])
    elif kind is Kind.TOOL_CALL:
        named = first(found, (*NAMES["tool"], "traceloop.entity.name"))
    elif kind is Kind.RETRIEVAL:
        named = first(found, (*NAMES["source"], *NAMES["tool"], "traceloop.entity.name"))
    else:
        named = first(found, NAMES["step"])
    return text(named) or span_name


def _asked_model(found: Mapping[str, Any]) -> str | None:
    """The model asked for, where OpenInference has only what answered: answers name dated snapshots of it."""
    for name in ("llm.invocation_parameters", "embedding.invocation_parameters"):
        if isinstance(given := found.get(name), str):
            try:
                parsed = json.loads(given)
            except (ValueError, RecursionError):
                continue
            if isinstance(parsed, dict) and isinstance(parsed.get("model"), str):
                return str(parsed["model"])
    return None


def _provider(found: Mapping[str, Any]) -> str | None:
    named = text(first(found, NAMES["provider"]))
    return None if named is None else PROVIDERS.get(named.lower(), named.lower())


def _whole_input(record: dict[str, Any]) -> None:
    """Input tokens with the cached ones, as the conventions have it.

    Early emitters passed on what Anthropic reports, which leaves them out; then there are more cached tokens than there was input.
    """
    whole = record["input_tokens"]
    cached = (record["cached_input_tokens"] or 0) + (record["cache_write_tokens"] or 0)
    if whole is not None and cached > whole:
        record["input_tokens"] = amount(whole + cached)


def _duration(span: Span, counters: Counter[str]) -> int | None:
    if not span.start_time_unix_nano:
        return None
    duration = amount(span.end_time_unix_nano // 1000 - span.start_time_unix_nano // 1000)
    if duration is None:
        counters["bad_value:duration_us"] += 1  # ended before it began, or lasted for months
    return duration


def _outcome(span: Span, found: Mapping[str, Any]) -> tuple[Status, str | None]:
    error = text(first(found, NAMES["error"]))
    failed = span.status.code == OtlpStatus.STATUS_CODE_ERROR
    if error is None and failed:
        raised = [
            attributes(event.attributes).get("exception.type") for event in span.events if event.name == "exception"
        ]
        error = text(raised[-1]) if raised else None
    if error is None:
        return (Status.ERROR, "_OTHER") if failed else (Status.OK, None)
    lower = error.lower()
    if "timeout" in lower or "deadline" in lower:
        return Status.TIMEOUT, error
    return (Status.CANCELLED if "cancel" in lower else Status.ERROR), error


def _rest(
    span: Span,
    found: Mapping[str, Any],
    around: Mapping[str, Any],
    operation: str,
    rules: Rules,
    counters: Counter[str],
) -> dict[str, Any] | None:
    """What no field holds, as attributes."""
    rest: dict[str, Any] = {}
    if span.name != operation:
        rest["otel.span.name"] = span.name[: STRING_CAPS["operation"]]
    rest |= around
    content: dict[str, Any] = {}
    for name, value in found.items():
        if value is None or (name in _READ and not is_content(name, value)):
            continue
        if is_content(name, value):
            content[name] = value
        else:
            rest[name] = value
    if span.status.message:
        content["otel.status_description"] = span.status.message
    if rules.capture_content:
        rest |= content  # last: where there is too much, content is what has to go
    elif content:
        counters["content_dropped"] += len(content)
    return rest or None
