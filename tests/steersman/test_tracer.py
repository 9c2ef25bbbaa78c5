"""Spans, their place in the trace, and what a tracer records about them."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from typing import Any

import pytest

from steersman.decision import Decision
from steersman.events import Kind, Mode, Status
from steersman.sink import MemorySink
from steersman.span import status_of
from steersman.tracer import Tracer


def spans(sink: MemorySink) -> list[dict[str, Any]]:
    return [record for record in sink.records if record["kind"] != "END"]


def test_a_span_says_what_when_and_how_long(tracer: Tracer, sink: MemorySink, clock: Any) -> None:
    with tracer.span(Kind.MODEL_CALL, operation="gpt", session_id="chat-1") as span:
        span.set(input_tokens=10, cost_micro_usd=25)
        span.set(input_tokens=12, attributes={"a": 1})
        span.set(attributes={"b": 2})
        clock.advance(0.25)
    event = sink.records[0]
    assert event == {
        "event_id": event["event_id"],
        "tenant": "default",
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "session_id": "chat-1",
        "agent": "retrieval",
        "kind": "MODEL_CALL",
        "ts": clock.now_us(),
        "duration_us": 250_000,
        "status": "OK",
        "operation": "gpt",
        "input_tokens": 12,
        "cost_micro_usd": 25,
        "attributes": '{"a": 1, "b": 2}',
        "truncated": False,
    }


def test_a_root_span_ends_the_trace_after_its_own_event(tracer: Tracer, sink: MemorySink) -> None:
    with tracer.span(Kind.AGENT) as root, tracer.span(Kind.TOOL_CALL) as child:
        pass
    assert [(e["kind"], e["span_id"]) for e in sink.records] == [
        ("TOOL_CALL", child.span_id),
        ("AGENT", root.span_id),
        ("END", root.span_id),
    ]
    assert sink.records[0]["parent_span_id"] == root.span_id
    assert {e["trace_id"] for e in sink.records} == {root.trace_id}
    assert len({e["event_id"] for e in sink.records}) == 3


def test_no_end_when_the_trace_goes_on_elsewhere(tracer: Tracer, sink: MemorySink) -> None:
    with tracer.span(end=False) as root:
        pass
    assert [e["kind"] for e in sink.records] == ["AGENT"]
    assert tracer.end_trace(root.trace_id)
    assert sink.records[1]["kind"] == "END"


def test_a_traceparent_carries_the_trace_into_another_process(tracer: Tracer, sink: MemorySink) -> None:
    other = Tracer("synthesis", sink=sink)
    with tracer.span(Kind.AGENT) as here:
        header = here.traceparent
    with other.span(Kind.AGENT, parent=header) as there:
        assert there.traceparent.split("-")[1] == here.trace_id
    event = next(e for e in sink.records if e["agent"] == "synthesis")
    assert (event["trace_id"], event["parent_span_id"]) == (here.trace_id, here.span_id)
    assert [e["kind"] for e in sink.records] == ["AGENT", "END", "AGENT"]


def test_an_unusable_traceparent_begins_a_new_trace_and_is_counted(tracer: Tracer, sink: MemorySink) -> None:
    with tracer.span(parent="nonsense") as span:
        pass
    assert span.is_root
    assert tracer.stats()["trouble"] == {"bad_traceparent": 1}
    assert [e["kind"] for e in sink.records] == ["AGENT", "END"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no"), "ERROR"),
        (TimeoutError(), "TIMEOUT"),
        (type("APITimeoutError", (Exception,), {})(), "TIMEOUT"),
        (asyncio.CancelledError(), "CANCELLED"),
        (KeyboardInterrupt(), "CANCELLED"),
        (SystemExit(3), "ERROR"),
    ],
)
def test_an_exception_sets_the_status_and_goes_on(
    tracer: Tracer, sink: MemorySink, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)) as caught, tracer.span(Kind.TOOL_CALL):
        raise error
    assert caught.value is error
    assert (sink.records[0]["status"], sink.records[0]["error"]) == (status, type(error).__name__)
    assert sink.records[1]["status"] == status, "the END event has the outcome of the root"
    assert tracer.current() is None


def test_leaving_by_exit_code_0_is_no_failure() -> None:
    assert status_of(SystemExit(0)) is Status.OK


def test_what_the_caller_sets_holds_against_what_was_measured(tracer: Tracer, sink: MemorySink) -> None:
    with tracer.span(Kind.TOOL_CALL) as span:
        span.set(status=Status.TIMEOUT, error="gateway", duration_us=7, operation="other")
    event = sink.records[0]
    assert (event["status"], event["error"], event["duration_us"], event["operation"]) == (
        "TIMEOUT",
        "gateway",
        7,
        "other",
    )


def test_a_span_cannot_be_made_into_another(tracer: Tracer, sink: MemorySink) -> None:
    with tracer.span() as span:
        span.set(trace_id="f" * 32, kind="END", no_such_field=1, input_tokens=3)
    assert sink.records[0]["trace_id"] == span.trace_id
    assert sink.records[0]["kind"] == "AGENT"
    assert sink.records[0]["input_tokens"] == 3
    assert tracer.stats()["trouble"] == {"unknown_field": 3}


async def _leaf(tracer: Tracer, name: str) -> None:
    async with tracer.span(Kind.TOOL_CALL, operation=name):
        await asyncio.sleep(0)


def test_tasks_and_worker_threads_inherit_the_span(tracer: Tracer, sink: MemorySink) -> None:
    async def main() -> str:
        async with tracer.span(Kind.AGENT) as root:
            await asyncio.gather(_leaf(tracer, "a"), _leaf(tracer, "b"))
            await asyncio.to_thread(
                lambda: tracer.span(Kind.TOOL_CALL, operation="c").__enter__().__exit__(None, None, None)
            )
            assert tracer.current() is root
        return root.span_id

    root = asyncio.run(main())
    parents = {e["operation"]: e["parent_span_id"] for e in spans(sink) if e["kind"] == "TOOL_CALL"}
    assert parents == {"a": root, "b": root, "c": root}


def test_a_plain_thread_begins_anew_unless_given_the_context_or_the_span(tracer: Tracer, sink: MemorySink) -> None:
    def work(name: str, parent: Any = None) -> None:
        with tracer.span(Kind.TOOL_CALL, operation=name, parent=parent):
            pass

    with tracer.span(Kind.AGENT) as root:
        context = contextvars.copy_context()
        threads = [
            threading.Thread(target=work, args=("alone",)),
            threading.Thread(target=context.run, args=(work, "context")),
            threading.Thread(target=work, args=("handed", root)),
        ]
        for thread in threads:
            thread.start()
            thread.join()
    found = {e.get("operation"): e for e in spans(sink)}
    assert found["alone"]["trace_id"] != root.trace_id
    assert found["context"]["parent_span_id"] == root.span_id
    assert found["handed"]["parent_span_id"] == root.span_id


def test_a_span_left_in_another_context_is_recorded_and_counted(tracer: Tracer, sink: MemorySink) -> None:
    span = tracer.span()
    contextvars.copy_context().run(span.__enter__)
    span.__exit__(None, None, None)
    assert [e["kind"] for e in sink.records] == ["AGENT", "END"]
    assert tracer.stats()["trouble"] == {"foreign_context": 1}


def test_a_cancelled_task_is_cancelled_in_its_span_too(tracer: Tracer, sink: MemorySink) -> None:
    async def main() -> None:
        entered = asyncio.Event()

        async def forever() -> None:
            async with tracer.span(Kind.TOOL_CALL):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(forever())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert sink.records[0]["status"] == "CANCELLED"


# ---- feedback --------------------------------------------------------------------------------------------------------

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_feedback_needs_nothing_but_the_decision_id(sink: MemorySink) -> None:
    elsewhere = Tracer("judge", sink=sink)
    assert elsewhere.feedback(f"{TRACE}-{SPAN}", value=True, source="user")
    event = sink.records[0]
    assert (event["kind"], event["trace_id"], event["target_decision_id"]) == ("FEEDBACK", TRACE, f"{TRACE}-{SPAN}")
    assert (event["metric"], event["value"], event["source"]) == ("quality", 1.0, "user")


def test_the_targets_of_feedback(tracer: Tracer, sink: MemorySink) -> None:
    decision = Decision({}, "", 1.0, f"{TRACE}-{SPAN}", "p", None, None, Mode.FALLBACK, "no_snapshot", False)
    span = tracer.span()
    assert tracer.feedback(decision, value=0.5)
    assert tracer.feedback(decision, value=0.5, target_decision=False)
    assert tracer.feedback(TRACE, value=0.5)
    assert tracer.feedback(span, value=0.5)
    assert tracer.feedback(span.traceparent, label="good", event_id="e" * 32)
    found = [(e["trace_id"], e.get("target_decision_id"), e.get("target_span_id")) for e in sink.records]
    assert found == [
        (TRACE, decision.decision_id, None),
        (TRACE, None, None),
        (TRACE, None, None),
        (span.trace_id, None, span.span_id),
        (span.trace_id, None, span.span_id),
    ]
    assert sink.records[-1]["event_id"] == "e" * 32


@pytest.mark.parametrize("target", ["", "x", TRACE + "-", f"{TRACE}-{SPAN}0", 5, None, "0" * 32])
def test_feedback_for_nothing_is_refused_and_counted(tracer: Tracer, sink: MemorySink, target: Any) -> None:
    assert tracer.feedback(target, value=1.0) is False
    assert tracer.stats()["trouble"] == {"bad_target": 1}
    assert not sink.records


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "good", object()])
def test_feedback_without_a_usable_value_is_dropped_and_counted(tracer: Tracer, sink: MemorySink, value: Any) -> None:
    assert tracer.feedback(TRACE, value=value) is False
    assert tracer.stats()["dropped"] == {"invalid:empty_feedback": 1}


def test_a_comment_leaves_the_process_only_when_content_is_captured(sink: MemorySink) -> None:
    Tracer("a", sink=sink).feedback(TRACE, value=1, comment="my name is")
    Tracer("a", sink=sink, capture_content=True).feedback(TRACE, value=1, comment="fine")
    assert [e.get("comment") for e in sink.records] == [None, "fine"]


# ---- emit, and sinks that misbehave ----------------------------------------------------------------------------------


def test_emit_fills_in_what_is_missing(tracer: Tracer, sink: MemorySink, clock: Any) -> None:
    assert tracer.emit({"kind": Kind.RETRIEVAL})
    with tracer.span(session_id="s") as span:
        tracer.emit({"kind": Kind.RETRIEVAL})
    alone, inside = sink.records[0], sink.records[1]
    assert len(alone["trace_id"]) == 32
    assert (alone["tenant"], alone["agent"], alone["ts"]) == ("default", "retrieval", clock.now_us())
    assert (inside["trace_id"], inside["parent_span_id"], inside["session_id"]) == (span.trace_id, span.span_id, "s")


def test_a_sink_that_raises_does_not_reach_the_caller(clock: Any) -> None:
    class Broken(MemorySink):
        def offer(self, record: dict[str, Any]) -> bool:
            raise OSError("disk full")

    tracer = Tracer("a", sink=Broken(), clock=clock)
    with tracer.span(end=False):
        pass
    assert tracer.feedback(TRACE, value=1.0) is False
    assert tracer.stats()["trouble"] == {"sink:OSError": 2}


def test_the_environment_is_asked_for_what_is_not_given(monkeypatch: pytest.MonkeyPatch, sink: MemorySink) -> None:
    monkeypatch.setenv("STEERSMAN_TENANT", "acme")
    assert Tracer("a", sink=sink).tenant == "acme"
    assert Tracer("a", sink=sink, tenant="other").tenant == "other"
