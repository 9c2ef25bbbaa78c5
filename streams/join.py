"""The join: events of a trace in any order become one reward per decision.

Everything happens in event time. A decision closes when its trace has ended, has been judged, and the clock of the
partition is ``settle_ms`` past the last event of the trace (aggregation ``first``), or else at the end of its
reward window. No event of a trace can close its own decisions: each pushes the deadline ahead of the clock it moves
(up to the end of the window plus the allowed lateness, so that chatter cannot hold a reward back
for ever). That is why the order in which the events of a trace arrive does not show in its rewards.

An ended trace is reduced to a marker `lateness` after its last reward; the marker knows the ids of its events, so
that late and repeated ones are told apart, and goes at the horizon. Memory is bounded by the traces of one horizon
(or reward window, whichever is longer).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Any, Final

from streams.closed_traces import ClosedTraces
from streams.credit import SpanTree
from streams.detect.signs import args_of, fill_of, signs_of
from streams.detect.trace_watch import TraceWatch
from streams.events import BAD_STATUSES
from streams.ports import PolicyBook, PolicyRules
from streams.rewards import build_reward
from streams.team import remember
from streams.trace_state import (
    Decision,
    FeedbackRecord,
    Marker,
    SpanRecord,
    Trace,
    TraceKey,
    fold_id,
    load_trace,
    targets,
)

KEY_PREFIX: Final = "trace:"
MAX_OPEN_DECISIONS: Final = 256
"""Decisions of one trace that may wait at a time, so that its state fits a record of the state topic; further ones
are counted ``trace_overflow`` and get no reward."""
_CLOSED: Final = ("", "")
"""Stands among the timers for the first of the closed traces that will be forgotten."""


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
        self._policies = policies
        self._lateness = lateness_us
        self._horizon = horizon_us
        self._max_events = max_events
        self._count = counters
        self._traces: dict[TraceKey, Trace] = {}
        self._closed = ClosedTraces(horizon_us)
        self._closed_wake = 0
        self._timers: list[tuple[int, TraceKey]] = []
        self._dirty: dict[TraceKey, None] = {}  # in the order in which they changed
        self._forgotten: dict[TraceKey, Marker] = {}
        self._gone: set[TraceKey] = set()

    def __len__(self) -> int:
        """Return how many traces are held, open and closed."""
        return len(self._traces) + len(self._closed)

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
        trace = self._enter(key, folded, kind, ts, offset)
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
        self._arm(key, trace)
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
        trace = self._enter(key, folded, "END" if span is None else "", ts, offset)
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
        self._arm(key, trace)
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
        timers = self._timers
        while timers and timers[0][0] <= now_us:
            due, key = heappop(timers)
            if key is _CLOSED:
                if due == self._closed_wake:
                    for closed, marker in self._closed.forget(now_us):
                        self._forget(closed, marker.at, marker.quiet_at)
                    self._closed_wake = 0
                    self._arm_closed()
                continue
            trace = self._traces.get(key)
            if trace is not None and trace.wake == due:
                if self._due(trace) > due:
                    trace.wake = 0
                    self._arm(key, trace)
                else:
                    self._fire(key, trace, due, rewards)
        if len(timers) > 4 * len(self._traces) + 1024:
            self._drop_stale_timers()
        return rewards

    @property
    def timers(self) -> list[tuple[int, TraceKey]]:
        """What waits for event time to pass: a heap, always the same list. `advance` is idle before the first of them."""
        return self._timers

    def next_timer(self) -> int | None:
        """Event time at which something will happen by itself; None when nothing waits."""
        timers = self._timers
        while timers:
            due, key = timers[0]
            if key is _CLOSED and due == self._closed_wake:
                return due
            trace = self._traces.get(key)
            if trace is not None and trace.wake == due:
                true_due = self._due(trace)
                if true_due <= due:
                    return due
                trace.wake = 0
                heappop(timers)
                self._arm(key, trace)
                continue
            heappop(timers)
        return None

    def dump_dirty(self) -> Iterator[tuple[str, bytes | None]]:
        """State changed since the last call as (key, JSON).

        Of a forgotten trace an empty marker is dumped first, and only the call after that says that it is gone
        (None): should the first of these checkpoints be cut off, the replay skips what the trace has seen.
        """
        for key in self._dirty:
            held = self._traces.get(key) or self._closed.get(key) or self._forgotten[key]
            yield _state_key(key), held.dump()
        for key in sorted(self._gone):
            if key not in self._dirty:
                yield _state_key(key), None
        # A trace that was forgotten and then heard of again is held: its key must not go.
        self._gone = {key for key in self._forgotten if key not in self._traces and key not in self._closed}
        self._forgotten.clear()
        self._dirty.clear()

    def restore(self, name: str, data: bytes, now_us: int) -> None:
        """Take back one key that `dump_dirty` gave; ValueError when it is not one.

        Parameters
        ----------
        name : str
            The key.
        data : bytes
            Its value.
        now_us : int
            Clock of the checkpoint: what was to be forgotten by then is; unit: microseconds since 1970-01-01 UTC.
        """
        trace_id, _, tenant = name.removeprefix(KEY_PREFIX).partition(":")
        key = (trace_id, tenant)
        held, dropped = load_trace(data, self._policies)
        if dropped:
            self._count["dropped_decisions"] += dropped
        if isinstance(held, Trace):
            self._traces[key] = held
            self._arm(key, held)
        elif held.quiet_at + self._horizon > now_us:
            self._keep_marker(key, held)
        else:
            self._gone.add(key)

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

    def _enter(self, key: TraceKey, folded: int, kind: str, ts: int, offset: int) -> Trace | bool:
        """Return the trace that an event changes, or else whether the event counts (False for a repeat)."""
        trace = self._traces.get(key)
        if trace is None:
            marker = self._closed.get(key)
            if marker is not None:
                return self._apply_late(key, marker, folded, kind, offset)
            trace = self._traces[key] = Trace()
        elif offset <= trace.at:
            # The key is newer than the marker that a restart resumed from, and then so are all windows.
            self._count["replayed"] += 1
            return False
        self._dirty[key] = None
        trace.at = offset
        seen = trace.seen
        if folded in seen:
            self._count["duplicate"] += 1
            return False
        if len(seen) >= self._max_events:
            self._count["trace_overflow"] += 1
            return True
        seen.add(folded)
        if ts > trace.last_ts:
            trace.last_ts = ts
        return trace

    def _apply_late(self, key: TraceKey, marker: Marker, folded: int, kind: str, offset: int) -> bool:
        if offset <= marker.at:
            self._count["replayed"] += 1
            return False
        marker.at = offset
        self._dirty[key] = None
        repeated = folded in marker.seen
        if not repeated and len(marker.seen) < self._max_events:
            marker.seen.append(folded)
        self._closed.change(key, marker)
        if repeated:
            self._count["duplicate"] += 1
            return False
        name = {"FEEDBACK": "late_feedback", "DECISION": "late_decision", "END": "late_end"}
        self._count[name.get(kind, "late_span")] += 1
        return True

    def _decision_due(self, trace: Trace, decision: Decision) -> int:
        window_end_us, settle_us = decision.window_end_us, decision.settle_us
        settled = trace.last_ts + settle_us
        if settled < window_end_us:
            judged = decision.judged and decision.first and trace.end_ts is not None
            return settled if judged else window_end_us
        latest = window_end_us + (self._lateness if self._lateness > settle_us else settle_us)
        return settled if settled < latest else latest

    def _due(self, trace: Trace) -> int:
        if trace.open:
            if len(trace.open) == 1:
                (decision,) = trace.open.values()
                return self._decision_due(trace, decision)
            return min([self._decision_due(trace, decision) for decision in trace.open.values()])
        quiet_at = max(trace.last_ts, trace.closed_at)
        return quiet_at + (self._lateness if _finished(trace) else self._horizon)

    def _arm(self, key: TraceKey, trace: Trace) -> None:
        due = self._due(trace)
        if not trace.wake or due < trace.wake:
            trace.wake = due
            heappush(self._timers, (due, key))

    def _fire(self, key: TraceKey, trace: Trace, due: int, rewards: list[tuple[dict[str, Any], str]]) -> None:
        self._dirty[key] = None
        if not trace.open:
            del self._traces[key]
            orphans = trace.orphans()
            if orphans:
                self._count["orphan_feedback"] += orphans
            quiet_at = max(trace.last_ts, trace.closed_at)
            if _finished(trace):
                self._keep_marker(key, Marker(trace.at, quiet_at, sorted(trace.seen)))
            else:
                self._forget(key, trace.at, quiet_at)
            return
        tree = SpanTree(trace.spans, trace.end_ts)
        for decision_id in sorted(trace.open):
            decision = trace.open[decision_id]
            if self._decision_due(trace, decision) > due:
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
        trace.wake = 0
        self._arm(key, trace)

    def _keep_marker(self, key: TraceKey, marker: Marker) -> None:
        self._closed.keep(key, marker)
        self._arm_closed()

    def _arm_closed(self) -> None:
        due = self._closed.next_due
        if due is not None and (not self._closed_wake or due < self._closed_wake):
            self._closed_wake = due
            heappush(self._timers, (due, _CLOSED))

    def _forget(self, key: TraceKey, at: int, quiet_at: int) -> None:
        self._forgotten[key] = Marker(at, quiet_at, ())
        self._dirty[key] = None
        self._count["forgotten_traces"] += 1

    def _drop_stale_timers(self) -> None:
        self._timers[:] = [(trace.wake, key) for key, trace in self._traces.items()]
        if self._closed_wake:
            self._timers.append((self._closed_wake, _CLOSED))
        heapify(self._timers)


def _state_key(key: TraceKey) -> str:
    return f"{KEY_PREFIX}{key[0]}:{key[1]}"


def _finished(trace: Trace) -> bool:
    """Whether an ended trace may be reduced: it was rewarded, or nothing waits for a decision of it."""
    return trace.end_ts is not None and (bool(trace.closed) or not trace.feedback)
