"""Golden cases of span trees."""

from __future__ import annotations

import pytest

from streams.credit import Charge, SpanTree
from streams.detect.signs import FAILED, TOOL, TOOL_CALL
from streams.trace_state import SpanRecord


def span(name: str, parent: str | None, start: int, end: int, cost: int = 0, failed: bool = False) -> SpanRecord:
    return SpanRecord(name, parent, end, end - start, cost, cost * 10, cost * 2, failed, True)


#   orchestrator 0..100
#     retrieval 10..40 (an agent of its own)
#       search 12..20, rerank 20..38 (failed)
#     synthesis 40..90
#       model 41..89
FLEET = [
    span("orchestrator", None, 0, 100, 1),
    span("retrieval", "orchestrator", 10, 40, 2),
    span("search", "retrieval", 12, 20, 4),
    span("rerank", "retrieval", 20, 38, 8, failed=True),
    span("synthesis", "orchestrator", 40, 90, 16),
    span("model", "synthesis", 41, 89, 32),
    SpanRecord("choice", "retrieval", 11, None, 0, 0, 0, False, False),
]


@pytest.mark.parametrize(
    ("enclosing", "rule", "cost", "latency", "failures", "spans"),
    [
        ("orchestrator", "subtree", 63, 100, 1, 6),
        ("retrieval", "subtree", 14, 30, 1, 3),
        ("synthesis", "subtree", 48, 50, 0, 2),
        ("search", "subtree", 4, 8, 0, 1),
        ("retrieval", "trace", 63, 100, 1, 6),
        (None, "subtree", 63, 100, 1, 6),
    ],
)
def test_nested_agents(enclosing: str | None, rule: str, cost: int, latency: int, failures: int, spans: int) -> None:
    for order in (FLEET, FLEET[::-1]):
        charge = SpanTree(order).charge(11, enclosing, rule)
        assert charge == Charge(cost, latency, failures, cost * 10, cost * 2, spans)


def test_an_enclosing_span_that_never_reported_has_the_extent_of_its_subtree() -> None:
    silent = [one for one in FLEET if one.span_id != "retrieval"]
    assert SpanTree(silent).charge(11, "retrieval", "subtree") == Charge(12, 38 - 11, 1, 120, 24, 2)
    assert SpanTree([]).charge(11, "retrieval", "subtree") == Charge(0, 0, 0, 0, 0, 0)


def test_a_trace_without_a_root_or_with_two_has_its_extent() -> None:
    assert SpanTree(FLEET[1:]).charge(11, None, "trace").latency_us == 90 - 10
    assert SpanTree([*FLEET, span("other", None, 95, 130)]).charge(11, None, "trace").latency_us == 130
    assert SpanTree([], end_ts=500).charge(11, None, "trace").latency_us == 489


def test_spans_below_a_decision_belong_to_the_enclosing_span() -> None:
    spans = [*FLEET, span("extra", "choice", 50, 60, 64)]
    assert SpanTree(spans).charge(11, "retrieval", "subtree").cost_micro_usd == 14 + 64


def test_a_span_reported_twice_counts_twice_and_lasts_its_longest() -> None:
    spans = [span("a", None, 0, 10, 1), span("a", None, 0, 30, 2)]
    assert SpanTree(spans).charge(0, "a", "subtree") == Charge(3, 30, 0, 30, 6, 2)


def test_parents_in_a_circle_end() -> None:
    spans = [span("a", "b", 0, 10, 1), span("b", "a", 0, 20, 2), span("c", "c", 0, 5, 4)]
    assert SpanTree(spans).charge(0, "a", "subtree").cost_micro_usd == 3
    assert SpanTree(spans).charge(0, "c", "subtree").cost_micro_usd == 4


def test_a_long_chain_needs_no_recursion() -> None:
    spans = [span(str(i), str(i - 1), i, i + 1, 1) for i in range(5000)]
    assert SpanTree(spans).charge(0, "-1", "subtree").cost_micro_usd == 5000


def test_tool_calls_are_counted_however_they_ended_and_retrievals_are_not() -> None:
    calls = [
        span("agent", None, 0, 100),
        span("search", "agent", 1, 2)._replace(signs=TOOL_CALL | TOOL),
        span("broken", "agent", 3, 4, failed=True)._replace(signs=TOOL_CALL | FAILED),
        span("documents", "agent", 5, 6)._replace(signs=TOOL),
        span("elsewhere", None, 7, 8)._replace(signs=TOOL_CALL),
    ]
    assert SpanTree(calls).charge(0, "agent", "subtree").tool_calls == 2
    assert SpanTree(calls).charge(0, "agent", "trace").tool_calls == 3
