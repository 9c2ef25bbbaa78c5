"""From spans to events: every generation of names, deterministic ids, no content, and nothing the join would refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from doors.conventions import NAMES, OPERATIONS
from doors.mapped import Mapped, Rules
from doors.spans import events_of_logs, events_of_spans
from steersman.codec import Codec
from steersman.ids import args_hash
from streams.events import validate
from tests.doors.payloads import END_NS, PARENT, SPAN, TRACE, many, pairs, request
from tests.streams.trace_events import POLICIES

CODEC = Codec("trace_event")
TOKENS = {
    "input_tokens": 120,
    "cached_input_tokens": 64,
    "cache_write_tokens": 16,
    "output_tokens": 30,
    "reasoning_tokens": 12,
}

PLAIN = Rules()
GENERATIONS: dict[str, dict[str, Any]] = {
    "conventions of today": {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2026-01-01",
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.cache_write.input_tokens": 16,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.reasoning.output_tokens": 12,
        "gen_ai.conversation.id": "c-7",
    },
    "conventions up to 1.36": {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.cache_creation.input_tokens": 16,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.reasoning_tokens": 12,
        "session.id": "c-7",
    },
    "OpenLLMetry before 0.50": {
        "llm.request.type": "chat",
        "gen_ai.system": "OpenAI",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.prompt_tokens": 120,
        "gen_ai.usage.cache_read_input_tokens": 64,
        "gen_ai.usage.cache_creation_input_tokens": 16,
        "gen_ai.usage.completion_tokens": 30,
        "llm.usage.reasoning_tokens": 12,
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": "a secret",
        "gen_ai.completion.0.content": "a secret",
        "traceloop.association.properties.session_id": "c-7",
    },
    "OpenInference": {
        "openinference.span.kind": "LLM",
        "llm.system": "openai",
        "llm.model_name": "gpt-4o-2026-01-01",
        "llm.invocation_parameters": '{"model": "gpt-4o", "temperature": 0}',
        "llm.token_count.prompt": 120,
        "llm.token_count.prompt_details.cache_read": 64,
        "llm.token_count.prompt_details.cache_write": 16,
        "llm.token_count.completion": 30,
        "llm.token_count.completion_details.reasoning": 12,
        "input.value": "a secret",
        "llm.input_messages.0.message.content": "a secret",
        "session.id": "c-7",
    },
    "Sentry's spelling": {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": "120",
        "gen_ai.usage.input_tokens.cached": "64",
        "gen_ai.usage.input_tokens.cache_write": 16.0,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.output_tokens.reasoning": 12,
        "gen_ai.conversation.id": "c-7",
    },
}


def mapped(attributes: dict[str, Any] | None = None, rules: Rules = PLAIN, **more: Any) -> Mapped:
    return events_of_spans(request(attributes, **more), rules)


def event(attributes: dict[str, Any] | None = None, rules: Rules = PLAIN, **more: Any) -> dict[str, Any]:
    """The event of a span, as it will be read."""
    out = mapped(attributes, rules, **more)
    assert out.problems == []
    return CODEC.decode(CODEC.encode(out.events[0]))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_generation_of_names_makes_the_same_event(generation: str) -> None:
    found = event(GENERATIONS[generation])
    assert {name: found[name] for name in TOKENS} == TOKENS
    assert (found["kind"], found["operation"], found["provider"]) == ("MODEL_CALL", "gpt-4o", "openai")
    assert (found["trace_id"], found["span_id"], found["parent_span_id"]) == (TRACE, SPAN, PARENT)
    assert (found["agent"], found["session_id"], found["status"]) == ("research", "c-7", "OK")
    assert (found["ts"], found["duration_us"]) == (END_NS // 1000, 1_500_000)
    assert found["context_tokens"] == 150
    assert "secret" not in json.dumps(found)
    validate(found, POLICIES)


def test_input_that_leaves_cached_tokens_out_is_made_whole() -> None:
    """What Anthropic reports, passed on as it is: 40 + 64 read + 16 written."""
    given_ = {
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.cache_creation.input_tokens": 16,
    }
    assert event(given_)["input_tokens"] == 120


@pytest.mark.parametrize(
    ("attributes", "kind", "operation"),
    [
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}, "TOOL_CALL", "search"),
        ({"openinference.span.kind": "TOOL", "tool.name": "search"}, "TOOL_CALL", "search"),
        ({"traceloop.span.kind": "tool", "traceloop.entity.name": "search"}, "TOOL_CALL", "search"),
        ({"gen_ai.operation.name": "retrieval", "gen_ai.data_source.id": "wiki"}, "RETRIEVAL", "wiki"),
        ({"openinference.span.kind": "RETRIEVER"}, "RETRIEVAL", "a span"),
        ({"gen_ai.operation.name": "search_memory", "gen_ai.memory.store.id": "m"}, "RETRIEVAL", "m"),
        ({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "planner"}, "AGENT", "planner"),
        ({"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": "w"}, "AGENT", "w"),
        ({"traceloop.span.kind": "workflow", "traceloop.entity.name": "w"}, "AGENT", "w"),
        ({"gen_ai.operation.name": "plan"}, "REASONING", "a span"),
        ({"openinference.span.kind": "CHAIN"}, "REASONING", "a span"),
        ({"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "e"}, "MODEL_CALL", "e"),
        ({"openinference.span.kind": "EMBEDDING", "embedding.model_name": "e"}, "MODEL_CALL", "e"),
        ({"gen_ai.operation.name": "something new", "gen_ai.request.model": "e"}, "MODEL_CALL", "e"),
        ({"http.request.method": "GET"}, "AGENT", "a span"),
    ],
)
def test_kinds_and_what_was_used(attributes: dict[str, Any], kind: str, operation: str) -> None:
    found = event(attributes, name="a span")
    assert (found["kind"], found["operation"]) == (kind, operation)


def test_every_operation_of_the_table_is_a_kind_of_span() -> None:
    for name, kind in OPERATIONS.items():
        assert event({"gen_ai.operation.name": name.upper()})["kind"] == kind


def test_arguments_are_hashed_as_the_tracer_hashes_them_and_not_kept() -> None:
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
    as_text = event({**tool, "gen_ai.tool.call.arguments": '{"b": 2, "a": "secret"}'})
    as_structure = event({**tool, "gen_ai.tool.call.arguments": {"a": "secret", "b": 2}})
    assert as_text["args_hash"] == as_structure["args_hash"] == args_hash({"a": "secret", "b": 2})
    assert "secret" not in json.dumps(as_text)
    assert event({**tool, "tool.parameters": "not JSON"})["args_hash"] == args_hash("not JSON")


def test_cost_becomes_millionths_of_a_dollar() -> None:
    assert event({"gen_ai.operation.name": "chat", "gen_ai.usage.cost": 0.0123456})["cost_micro_usd"] == 12346
    assert event({"openinference.span.kind": "LLM", "llm.cost.total": -1.0})["cost_micro_usd"] is None


@pytest.mark.parametrize(
    ("more", "status", "error"),
    [
        ({}, "OK", None),
        ({"status": 1}, "OK", None),
        ({"status": 2}, "ERROR", "_OTHER"),
        ({"status": 2, "attributes": {"error.type": "RateLimitError"}}, "ERROR", "RateLimitError"),
        ({"attributes": {"error.type": "429"}}, "ERROR", "429"),
        ({"status": 2, "events": [("exception", {"exception.type": "APITimeoutError"})]}, "TIMEOUT", "APITimeoutError"),
        ({"events": [("exception", {"exception.type": "ValueError"})]}, "OK", None),  # raised, and handled
        ({"status": 2, "attributes": {"error.type": "asyncio.CancelledError"}}, "CANCELLED", "asyncio.CancelledError"),
    ],
)
def test_outcomes(more: dict[str, Any], status: str, error: str | None) -> None:
    found = event(more.pop("attributes", {}), **more)
    assert (found["status"], found["error"]) == (status, error)


def test_a_root_span_ends_its_trace() -> None:
    out = mapped({"gen_ai.operation.name": "invoke_agent"}, parent="", status=2)
    span, end = out.events
    assert (span["kind"], span.get("parent_span_id")) == ("AGENT", None)
    assert (end["kind"], end["span_id"], end["status"], end["ts"]) == ("END", SPAN, "ERROR", END_NS // 1000)
    assert [e["kind"] for e in mapped(rules=Rules(end_at_root=False), parent="").events] == ["AGENT"]
    assert [e["kind"] for e in mapped(rules=Rules(keep_other=False), parent="").events] == ["END"]
    assert mapped(rules=Rules(keep_other=False)).counters["other_spans"] == 1


def test_an_evaluation_is_feedback_about_its_span() -> None:
    evaluation = {
        "gen_ai.evaluation.name": "relevance",
        "gen_ai.evaluation.score.value": 0.75,
        "gen_ai.evaluation.score.label": "good",
        "gen_ai.evaluation.explanation": "a secret",
    }
    out = mapped(events=[("gen_ai.evaluation.result", evaluation), ("other", {})])
    feedback = out.events[1]
    assert len(out.events) == 2
    assert (feedback["kind"], feedback["metric"], feedback["value"], feedback["label"]) == (
        "FEEDBACK", "relevance", 0.75, "good"
    )  # fmt: skip
    assert (feedback["trace_id"], feedback["target_span_id"]) == (TRACE, SPAN)
    assert "comment" not in feedback
    kept = mapped(rules=Rules(capture_content=True), events=[("gen_ai.evaluation.result", evaluation)])
    assert kept.events[1]["comment"] == "a secret"
    validate(CODEC.decode(CODEC.encode(feedback)), POLICIES)


def test_an_evaluation_that_says_nothing_does_not_cost_the_span() -> None:
    out = mapped(
        events=[
            ("gen_ai.evaluation.result", {"gen_ai.evaluation.score.value": 1.0}),
            ("gen_ai.evaluation.result", {"gen_ai.evaluation.name": "x", "error.type": "timeout"}),
            ("gen_ai.evaluation.result", {"gen_ai.evaluation.name": "x", "gen_ai.evaluation.score.value": 1e13}),
        ]
    )
    assert (out.taken, out.refused, len(out.events)) == (1, 0, 1)
    assert len(out.problems) == 2
    assert out.counters["evaluation_without_score"] == 1


def test_evaluations_among_log_records() -> None:
    logs = ExportLogsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add().log_records
    scored = {"gen_ai.evaluation.name": "relevance", "gen_ai.evaluation.score.value": 1}
    ids = {"trace_id": bytes.fromhex(TRACE), "span_id": bytes.fromhex(SPAN)}
    records.add(event_name="gen_ai.evaluation.result", time_unix_nano=END_NS, **ids).attributes.extend(pairs(scored))
    records.add(time_unix_nano=END_NS, **ids).attributes.extend(
        pairs({**scored, "event.name": "gen_ai.evaluation.result"})
    )
    records.add(event_name="gen_ai.evaluation.result", time_unix_nano=END_NS).attributes.extend(pairs(scored))
    records.add(event_name="something else")
    out = events_of_logs(logs, Rules(tenant="acme"))
    assert (out.taken, out.refused, out.counters["other_log_records"]) == (2, 1, 1)
    assert out.problems == ["gen_ai.evaluation.result of trace none: trace_id: the evaluation belongs to no trace"]
    assert {(e["target_span_id"], e["value"], e["tenant"]) for e in out.events} == {(SPAN, 1.0, "acme")}
    assert len({e["event_id"] for e in out.events}) == 1, "the same evaluation, written in two ways"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"trace": "00" * 16}, "trace_id"),
        ({"trace": "ab" * 15}, "trace_id"),
        ({"trace": ""}, "trace_id"),
        ({"span": "00" * 8}, "span_id"),
        ({"span": ""}, "span_id"),
        ({"parent": "ab"}, "parent_span_id"),
        ({"end": 0}, "end_time_unix_nano"),
        ({"end": 2**64 - 1}, None),  # the year 2554
    ],
)
def test_spans_that_cannot_be_used_are_named(more: dict[str, Any], why: str | None) -> None:
    out = events_of_spans(many(request(**more), request()), Rules())
    assert (out.taken, out.refused) == ((1, 1) if why else (2, 0))
    assert why is None or (why in out.problems[0] and "chat gpt-4o" in out.problems[0])


def test_a_span_that_ended_before_it_began_has_no_duration() -> None:
    out = mapped(start=END_NS, end=END_NS - 5_000_000)
    assert "duration_us" not in out.events[0]
    assert out.counters["bad_value:duration_us"] == 1
    assert event(start=0)["duration_us"] is None


def test_the_same_span_has_the_same_id_wherever_it_comes_in() -> None:
    first, second = mapped(parent=""), events_of_spans(many(request(span=PARENT), request(parent="")), Rules("t"))
    assert [e["event_id"] for e in first.events] == [e["event_id"] for e in second.events[1:]]
    assert len({e["event_id"] for e in second.events}) == 3


def test_unknown_attributes_are_kept_and_content_is_not() -> None:
    attributes = {
        "gen_ai.request.temperature": 0.5,
        "my.team": "search",
        "my.note": "x" * 300,
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "secret"}]}],
        "gen_ai.output.type": "json",
        "llm.input_messages.3.message.content": "secret",
        "http.request.body": "secret",
        "gen_ai.usage.text.input_tokens": 3,
        "my.tags": ["a", "b"],
        "my.empty": None,
        "my.bytes": b"\x01\xff",
    }
    out = mapped(attributes, status=2, message="secret")
    kept = json.loads(out.events[0]["attributes"])
    assert kept == {
        "otel.scope.name": "tests",
        "service.name": "research",
        "gen_ai.request.temperature": 0.5,
        "my.team": "search",
        "gen_ai.output.type": "json",
        "gen_ai.usage.text.input_tokens": 3,
        "my.tags": ["a", "b"],
        "my.bytes": "01ff",
    }
    assert "secret" not in out.events[0]["attributes"]
    assert out.counters["content_dropped"] == 5
    asked = json.loads(
        mapped(attributes, Rules(capture_content=True), status=2, message="secret").events[0]["attributes"]
    )
    assert asked["otel.status_description"] == "secret"
    assert asked["my.note"] == "x" * 300


def test_what_was_dropped_before_is_said() -> None:
    made = request()
    made.resource_spans[0].scope_spans[0].spans[0].dropped_attributes_count = 2
    assert events_of_spans(made, Rules()).events[0]["truncated"] is True
    long = event({f"my.{n}": "x" * 200 for n in range(100)})
    assert long["truncated"] is True
    assert len(long["attributes"]) <= 8192
    json.loads(long["attributes"])


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    sorted({name for group in NAMES.values() for name in group} | {"gen_ai.operation.name", "x", ""})
)


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(names, values, max_size=12),
    st.sampled_from([None, *sorted(OPERATIONS)]),
    st.integers(0, 2**64 - 1),
    st.integers(1, 2**64 - 1),
    st.text(max_size=300),
)
def test_no_attribute_makes_an_event_that_the_join_refuses(
    attributes: dict[str, Any], operation: str | None, start: int, end: int, name: str
) -> None:
    if operation is not None:
        attributes["gen_ai.operation.name"] = operation
    evaluation = {"gen_ai.evaluation.name": "m", "gen_ai.evaluation.score.value": attributes.get("x")}
    out = mapped(
        attributes,
        name=name,
        start=start,
        end=end,
        parent="",
        events=[("gen_ai.evaluation.result", evaluation)],
    )
    assert out.taken + out.refused == 1
    for made in out.events:
        validate(CODEC.decode(CODEC.encode(made)), POLICIES)
