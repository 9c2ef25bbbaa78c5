"""What a decision is charged with: the sums over its own part of the trace's span tree.

Rule ``subtree``: the span that was current when deciding, and everything below it. A decision made deeper in
that subtree is charged with its own, smaller subtree; the outer one still pays for all of it, because it
chose to do that work. Rule ``trace``, and a decision without an enclosing span: the whole trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from streams.trace_state import SpanRecord


class Charge(NamedTuple):
    """Sums charged to one decision."""

    cost_micro_usd: int
    latency_us: int
    failures: int
    input_tokens: int
    output_tokens: int
    spans: int
    fill: float | None = None
    """Largest share of its context window that one of the spans had in use, None when none tells."""
    tool_calls: int = 0


class SpanTree:
    """The spans of a trace, indexed for charging several decisions.

    Span ids come from outside: an id may be reported twice (both count), a parent may never report (its
    children still hang together under its id), and parents may form a circle (each span is visited once).

    Parameters
    ----------
    spans : sequence of SpanRecord
        All spans and decisions reported; the order does not matter.
    end_ts : int, optional
        Highest time in the trace, for the extent of a trace that reported no span of work;
        unit: microseconds since 1970-01-01 UTC.
    """

    __slots__ = ("_all", "_by_id", "_children", "_end_ts")

    def __init__(self, spans: Sequence[SpanRecord], end_ts: int | None = None) -> None:
        by_id: dict[str, list[SpanRecord]] = {}
        children: dict[str | None, set[str]] = {}
        for span in spans:
            span_id, parent = span.span_id, span.parent
            if span_id in by_id:
                by_id[span_id].append(span)
            else:
                by_id[span_id] = [span]
            if parent in children:
                children[parent].add(span_id)
            elif parent is not None:
                children[parent] = {span_id}
        self._all = spans
        self._by_id = by_id
        self._children = children
        self._end_ts = end_ts

    def charge(self, decided_at: int, enclosing: str | None, rule: str) -> Charge:
        """Sum up what one decision is charged with.

        Parameters
        ----------
        decided_at : int
            Event time of the decision; unit: microseconds since 1970-01-01 UTC.
        enclosing : str or None
            Span that was current when deciding.
        rule : str
            ``subtree`` or ``trace``.

        Returns
        -------
        Charge
            Its latency is the duration of the enclosing span (of the root span for the whole
            trace), or, where that span never reported one, from the first start to the last end of what is charged.
        """
        if rule == "subtree" and enclosing is not None:
            heads = self._by_id.get(enclosing, ())
            return _sum(self._below(enclosing), heads, decided_at, None)
        roots = [span for span in self._all if span.parent is None and span.work]
        heads = roots if len({span.span_id for span in roots}) == 1 else ()
        return _sum(self._all, heads, decided_at, self._end_ts)

    def covers(self, enclosing: str | None, rule: str, span_id: str) -> bool:
        """Whether a span is among those that a decision is charged with."""
        if rule != "subtree" or enclosing is None:
            return True
        return any(span.span_id == span_id for span in self._below(enclosing))

    def _below(self, top: str) -> list[SpanRecord]:
        found: list[SpanRecord] = []
        visited = {top}
        stack = [top]
        while stack:
            span_id = stack.pop()
            found.extend(self._by_id.get(span_id, ()))
            for child in self._children.get(span_id, ()):
                if child not in visited:
                    visited.add(child)
                    stack.append(child)
        return found


def _sum(spans: Sequence[SpanRecord], heads: Iterable[SpanRecord], decided_at: int, end_ts: int | None) -> Charge:
    cost = failures = input_tokens = output_tokens = work = calls = 0
    first = last = decided_at
    fullest: float | None = None
    for _, _, ts, duration_us, span_cost, span_input, span_output, failed, works, signs, _, _, _, fill in spans:
        cost += span_cost
        failures += failed
        input_tokens += span_input
        output_tokens += span_output
        work += works
        calls += signs < 0  # `streams.detect.signs.TOOL_CALL`
        begin = ts - (duration_us or 0)
        if begin < first:
            first = begin
        if ts > last:
            last = ts
        if fill is not None and (fullest is None or fill > fullest):
            fullest = fill
    latency = max((head.duration_us for head in heads if head.duration_us is not None), default=None)
    if latency is None:
        if work == 0 and end_ts is not None:
            last = max(last, end_ts)
        latency = last - first
    return Charge(cost, latency, failures, input_tokens, output_tokens, work, fullest, calls)
