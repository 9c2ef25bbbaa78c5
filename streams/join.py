"""The join: events of a trace in any order become one reward per decision.

Everything happens in event time. A decision closes when its trace has ended, has been judged, and the clock of the
partition is ``settle_ms`` past the last event of the trace (aggregation ``first``), or else at the end of its
reward window. No event of a trace can close its own decisions (`streams.trace_timers`). That is why the order in which
the events of a trace arrive does not show in its rewards.

An ended trace is reduced to a marker `lateness` after its last reward; the marker knows the ids of its events, so
that late and repeated ones are told apart, and goes at the horizon (`streams.trace_book`). Memory is bounded by the traces of
one horizon (or reward window, whichever is longer).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from streams.credit import SpanTree
from streams.detect.signs import args_of, fill_of, signs_of
from streams.detect.trace_watch import TraceWatch
from streams.events import BAD_STATUSES
from streams.ports import PolicyBook, PolicyRules
from streams.rewards import build_reward
from streams.team import remember
from streams.trace_book import TraceBook
from streams.trace_state import Decision, FeedbackRecord, SpanRecord, Trace, TraceKey, fold_id, targets
from streams.trace_timers import TraceTimers

MAX_OPEN_DECISIONS: Final = 256
"""Decisions of one trace that may wait at a time, so that its state fits a record of the state topic; further ones
are counted ``trace_overflow`` and get no reward."""


class TraceJoin:
    """Open and closed traces of one partition.

    Parameters
    ----------
    policies : PolicyBook
        Policies of the decisions that come back from the state topic.
    lateness_us : int
        How long an ended trace stays open for stragglers after its last reward; unit: microseconds.
    horizon_us : int
        How long a trace is remembered after its last event or reward; unit: microseconds.
    max_events : int
        Events kept of one trace; further ones are counted ``trace_overflow`` and not joined.
    counters : Counter of str
        Where to count what is not an output: ``duplicate``, ``late_span``, ``late_feedback``, ``late_decision``,
        ``late_end``, ``orphan_feedback``, ``trace_overflow``, ``decision_conflict``, ``replayed`` and others.
    watch : TraceWatch, optional
        Detectors that look at the spans and rewards.
    """

    def __init__(
        self,
        policies: PolicyBook,
        *,
        lateness_us: int,
        horizon_us: int,
        max_events: int,
        counters: Counter[str],
        watch: TraceWatch | None = None,
    ) -> None:
        self._watch = watch
        self._count = counters
        self._book = TraceBook(policies, horizon_us=horizon_us, max_events=max_events, counters=counters)
        self._timers = TraceTimers(self._book, lateness_us=lateness_us, horizon_us=horizon_us)

    def __len__(self) -> int:
        """Return how many traces are held, open and closed."""
        return len(self._book)

    def apply(self, event: Mapping[str, Any], ts: int, offset: int, policy: PolicyRules | None) -> bool:
        """Take one valid event in.

        Parameters
        ----------
        event : mapping
            A validated trace event, not a TICK.
        ts : int
            Its event time, made plausible; unit: microseconds since 1970-01-01 UTC.
        offset : int
            Its Kafka offset.
        policy : PolicyRules or None
            The policy of a DECISION.

        Returns
        -------
        bool
            False when the event has been seen before and must not count anywhere.
        """
        kind = event["kind"]
        span = None
        if kind not in ("FEEDBACK", "END"):
            span = SpanRecord(
                event["span_id"],
                event["parent_span_id"],
                ts,
                event["duration_us"],
                event["cost_micro_usd"] or 0,
                event["input_tokens"] or 0,
                event["output_tokens"] or 0,
                event["status"] in BAD_STATUSES,
                kind != "DECISION",
            )
            if kind != "DECISION":
                span = span._replace(
                    signs=signs_of(event),
                    agent=event["agent"],
                    operation=event["operation"] or "",
                    call=args_of(event["args_hash"]),
                    fill=fill_of(event["context_tokens"], event["context_limit"]),
                )
        key = (event["trace_id"], event["tenant"])
        folded = fold_id(event["event_id"])
        if kind not in ("FEEDBACK", "DECISION"):
            return self.apply_plain(key, folded, ts, offset, span)
        trace = self._book.enter(key, folded, kind, ts, offset)
        if isinstance(trace, bool):
            return trace
        if span is None:
            self._apply_feedback(trace, event, ts)
        else:
            if policy is not None:
                self._apply_decision(trace, event, ts, policy)
            trace.spans.append(span)
            if self._watch is not None:
                self._watch.see(key, trace, span)
        self._timers.arm(key, trace)
        return True

    def apply_plain(self, key: TraceKey, folded: int, ts: int, offset: int, span: SpanRecord | None) -> bool:
        """Take in a valid event that is no DECISION and no FEEDBACK.

        Parameters
        ----------
        key : TraceKey
            Its trace.
        folded : int
            Its event id, see `fold_id`.
        ts, offset
            As for `apply`.
        span : SpanRecord or None
            The span that it reports; None for an END.

        Returns
        -------
        bool
            As `apply`.
        """
        trace = self._book.enter(key, folded, "END" if span is None else "", ts, offset)
        if isinstance(trace, bool):
            return trace
        if span is None:
            if trace.end_ts is None or ts > trace.end_ts:
                trace.end_ts = ts
            if self._watch is not None:
                self._watch.ended(key, trace)
        else:
            if trace.closed and not trace.open and trace.end_ts is not None:
                self._count["late_span"] += 1
            trace.spans.append(span)
            if self._watch is not None:
                self._watch.see(key, trace, span)
            if trace.wake:
                return True  # a span only ever puts deadlines off, and the timer finds that out itself
        self._timers.arm(key, trace)
        return True

    def advance(self, now_us: int) -> list[tuple[dict[str, Any], str]]:
        """Let event time pass: close, reduce and forget what is due.

        Parameters
        ----------
        now_us : int
            The clock of the partition; unit: microseconds since 1970-01-01 UTC.

        Returns
        -------
        list of (dict, str)
            Rewards without provenance, by (deadline, trace, decision id), each with its decision's operation.
        """
        rewards: list[tuple[dict[str, Any], str]] = []
        for due, key, trace in self._timers.due(now_us):
            if trace.open:
                rewards += self._reward(key, trace, due)
            else:
                self._book.close(key, trace)
                self._timers.arm_closed()
        return rewards

    @property
    def timers(self) -> list[tuple[int, TraceKey]]:
        """What waits for event time to pass: a heap, always the same list. `advance` is idle before the first of them."""
        return self._timers.heap

    def next_timer(self) -> int | None:
        """Event time at which something will happen by itself; None when nothing waits."""
        return self._timers.next_due()

    def dump_dirty(self) -> Iterator[tuple[str, bytes | None]]:
        """State changed since the last call as (key, JSON), see `TraceBook.dump_dirty`."""
        return self._book.dump_dirty()

    def restore(self, name: str, data: bytes, now_us: int) -> None:
        """Take back one key that `dump_dirty` gave, see `TraceBook.restore`."""
        key = self._book.restore(name, data, now_us)
        if key is None:
            self._timers.arm_closed()
        else:
            self._timers.arm(key, self._book.open[key])

    def _apply_decision(self, trace: Trace, event: Mapping[str, Any], ts: int, policy: PolicyRules) -> None:
        decision_id = event["decision_id"]
        if decision_id in trace.closed:
            self._count["decision_conflict"] += 1
            return
        other = trace.open.get(decision_id)
        if other is not None:
            # Two records claim one decision: the earlier one holds, whichever arrived first.
            self._count["decision_conflict"] += 1
            if (other.ts, other.fields["event_id"]) <= (ts, event["event_id"]):
                return
        elif len(trace.open) >= MAX_OPEN_DECISIONS:
            self._count["trace_overflow"] += 1
            return
        decision = Decision(event, ts, policy)
        decision.judged = any(map(decision.matches, trace.feedback))
        trace.open[decision_id] = decision

    def _apply_feedback(self, trace: Trace, event: Mapping[str, Any], ts: int) -> None:
        feedback = FeedbackRecord(
            ts,
            event["event_id"],
            event["metric"],
            event["value"],
            event["target_decision_id"],
            event["target_span_id"],
            event["source"],
        )
        trace.feedback.append(feedback)
        aimed = False
        for decision_id, decision in trace.open.items():
            if not decision.judged and decision.matches(feedback):
                decision.judged = True
            aimed = aimed or targets(feedback, decision_id, decision.fields["parent_span_id"])
        if not aimed and any(targets(feedback, *closed) for closed in trace.closed.items()):
            self._count["late_feedback"] += 1

    def _reward(self, key: TraceKey, trace: Trace, due: int) -> list[tuple[dict[str, Any], str]]:
        """Close the decisions of a trace that are due; returns their rewards, by decision id."""
        rewards: list[tuple[dict[str, Any], str]] = []
        tree = SpanTree(trace.spans, trace.end_ts)
        for decision_id in sorted(trace.open):
            decision = trace.open[decision_id]
            if self._timers.of_decision(trace, decision) > due:
                continue
            complete = decision.first and decision.judged and trace.end_ts is not None
            reward = build_reward(decision, tree, trace, due, complete=complete)
            if self._watch is not None:
                self._watch.judge(key, trace, decision, reward, tree)
            rewards.append((reward, decision.fields["operation"] or ""))
            del trace.open[decision_id]
            remember(trace, decision)
            trace.closed[decision_id] = decision.fields["parent_span_id"]
        trace.closed_at = max(trace.closed_at, due)
        self._book.changed(key)
        self._timers.arm(key, trace)
        return rewards
