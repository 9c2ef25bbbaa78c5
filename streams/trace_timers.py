"""When the traces of one partition are due: for a reward, to be reduced, to be forgotten.

No event of a trace can make its own decisions due: each pushes the deadline ahead of the clock it moves (up to the end of the
window plus the allowed lateness, so that chatter cannot hold a reward back for ever). So a timer may come before its trace is
due, never after, and finds that out itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from streams.trace_book import TraceBook
from streams.trace_state import Decision, Trace, TraceKey

_CLOSED: Final = ("", "")
"""Stands among the timers for the first of the closed traces that will be forgotten."""


class TraceTimers:
    """Deadlines in event time.

    Parameters
    ----------
    book : TraceBook
        The traces.
    lateness_us : int
        How long an ended trace stays open for stragglers after its last reward; unit: microseconds.
    horizon_us : int
        How long a trace is remembered after its last event or reward; unit: microseconds.

    Attributes
    ----------
    heap : list of (int, TraceKey)
        What waits for event time to pass, always the same list. `due` is idle before the first of them.
    """

    def __init__(self, book: TraceBook, *, lateness_us: int, horizon_us: int) -> None:
        self._book = book
        self._lateness = lateness_us
        self._horizon = horizon_us
        self._closed_wake = 0
        self.heap: list[tuple[int, TraceKey]] = []

    def arm(self, key: TraceKey, trace: Trace) -> None:
        """See that a timer goes off when an open trace is due."""
        due = self.of_trace(trace)
        if not trace.wake or due < trace.wake:
            trace.wake = due
            heappush(self.heap, (due, key))

    def arm_closed(self) -> None:
        """See that a timer goes off when the first of the closed traces is to be forgotten."""
        due = self._book.next_forgotten
        if due is not None and (not self._closed_wake or due < self._closed_wake):
            self._closed_wake = due
            heappush(self.heap, (due, _CLOSED))

    def due(self, now_us: int) -> Iterator[tuple[int, TraceKey, Trace]]:
        """Give out the open traces that are due, by (deadline, key), and let the book forget the closed ones that are.

        A trace that stays open is to be armed again before the next is asked for.

        Parameters
        ----------
        now_us : int
            The clock of the partition; unit: microseconds since 1970-01-01 UTC.
        """
        heap, traces = self.heap, self._book.open
        while heap and heap[0][0] <= now_us:
            due, key = heappop(heap)
            if key is _CLOSED:
                if due == self._closed_wake:
                    self._book.forget(now_us)
                    self._closed_wake = 0
                    self.arm_closed()
                continue
            trace = traces.get(key)
            if trace is not None and trace.wake == due:
                trace.wake = 0
                if self.of_trace(trace) > due:
                    self.arm(key, trace)
                else:
                    yield due, key, trace
        if len(heap) > 4 * len(traces) + 1024:
            self._drop_stale()

    def next_due(self) -> int | None:
        """Event time at which something will happen by itself; None when nothing waits."""
        heap, traces = self.heap, self._book.open
        while heap:
            due, key = heap[0]
            if key is _CLOSED and due == self._closed_wake:
                return due
            trace = traces.get(key)
            if trace is not None and trace.wake == due:
                if self.of_trace(trace) <= due:
                    return due
                trace.wake = 0
                heappop(heap)
                self.arm(key, trace)
                continue
            heappop(heap)
        return None

    def of_decision(self, trace: Trace, decision: Decision) -> int:
        """Event time at which a decision gets its reward, as things are; unit: microseconds since 1970-01-01 UTC."""
        window_end_us, settle_us = decision.window_end_us, decision.settle_us
        settled = trace.last_ts + settle_us
        if settled < window_end_us:
            judged = decision.judged and decision.first and trace.end_ts is not None
            return settled if judged else window_end_us
        latest = window_end_us + (self._lateness if self._lateness > settle_us else settle_us)
        return settled if settled < latest else latest

    def of_trace(self, trace: Trace) -> int:
        """Event time at which an open trace is due, as things are; unit: microseconds since 1970-01-01 UTC."""
        if trace.open:
            if len(trace.open) == 1:
                (decision,) = trace.open.values()
                return self.of_decision(trace, decision)
            return min([self.of_decision(trace, decision) for decision in trace.open.values()])
        return trace.quiet_at + (self._lateness if trace.finished else self._horizon)

    def _drop_stale(self) -> None:
        self.heap[:] = [(trace.wake, key) for key, trace in self._book.open.items()]
        if self._closed_wake:
            self.heap.append((self._closed_wake, _CLOSED))
        heapify(self.heap)
