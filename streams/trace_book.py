"""The traces of one partition that are held: the open ones, and what stays of those that are closed.

The book knows which events a trace has seen, and what has changed since the last checkpoint. What an event means, and when a
trace is due, others know (`streams.join`, `streams.trace_timers`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from streams.closed_traces import ClosedTraces
from streams.ports import PolicyBook
from streams.trace_state import Marker, Trace, TraceKey, load_trace

KEY_PREFIX: Final = "trace:"


class TraceBook:
    """Open and closed traces, by their keys.

    Parameters
    ----------
    policies : PolicyBook
        Policies of the decisions that come back from the state topic.
    horizon_us : int
        How long a trace is remembered after its last event or reward; unit: microseconds.
    max_events : int
        Events kept of one trace; further ones are counted ``trace_overflow`` and not joined.
    counters : Counter of str
        Where to count ``duplicate``, ``replayed``, ``trace_overflow``, ``orphan_feedback``, ``forgotten_traces``,
        ``dropped_decisions``, and what comes to a closed trace: ``late_span``, ``late_feedback``, ``late_decision``, ``late_end``.

    Attributes
    ----------
    open : dict of TraceKey to Trace
        The open ones.
    """

    def __init__(self, policies: PolicyBook, *, horizon_us: int, max_events: int, counters: Counter[str]) -> None:
        self._policies = policies
        self._horizon = horizon_us
        self._max_events = max_events
        self._count = counters
        self.open: dict[TraceKey, Trace] = {}
        self._closed = ClosedTraces(horizon_us)
        self._dirty: dict[TraceKey, None] = {}  # in the order in which they changed
        self._forgotten: dict[TraceKey, Marker] = {}
        self._gone: set[TraceKey] = set()

    def __len__(self) -> int:
        """Return how many traces are held, open and closed."""
        return len(self.open) + len(self._closed)

    @property
    def next_forgotten(self) -> int | None:
        """Event time at which the first of the closed ones is forgotten, None when there is none; unit: microseconds since 1970-01-01 UTC."""
        return self._closed.next_due

    def enter(self, key: TraceKey, folded: int, kind: str, ts: int, offset: int) -> Trace | bool:
        """Enter an event under its trace, which it opens when there is none.

        Parameters
        ----------
        key : TraceKey
            Its trace.
        folded : int
            Its event id, see `fold_id`.
        kind : str
            FEEDBACK, DECISION, END, or anything else for a span.
        ts : int
            Its event time; unit: microseconds since 1970-01-01 UTC.
        offset : int
            Its Kafka offset.

        Returns
        -------
        Trace or bool
            The trace that it changes, or else whether it counts (False for a repeat).
        """
        trace = self.open.get(key)
        if trace is None:
            marker = self._closed.get(key)
            if marker is not None:
                return self._enter_late(key, marker, folded, kind, offset)
            trace = self.open[key] = Trace()
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

    def changed(self, key: TraceKey) -> None:
        """Note that an open trace has changed without an event of its own."""
        self._dirty[key] = None

    def close(self, key: TraceKey, trace: Trace) -> None:
        """Reduce an open trace to its marker; one that is not finished is forgotten."""
        del self.open[key]
        orphans = trace.orphans()
        if orphans:
            self._count["orphan_feedback"] += orphans
        if trace.finished:
            self._dirty[key] = None
            self._closed.keep(key, Marker(trace.at, trace.quiet_at, sorted(trace.seen)))
        else:
            self._forget(key, trace.at, trace.quiet_at)

    def forget(self, now_us: int) -> None:
        """Forget the closed ones whose time has come.

        Parameters
        ----------
        now_us : int
            The clock of the partition; unit: microseconds since 1970-01-01 UTC.
        """
        for key, marker in self._closed.forget(now_us):
            self._forget(key, marker.at, marker.quiet_at)

    def dump_dirty(self) -> Iterator[tuple[str, bytes | None]]:
        """State changed since the last call as (key, JSON).

        Of a forgotten trace an empty marker is dumped first, and only the call after that says that it is gone
        (None): should the first of these checkpoints be cut off, the replay skips what the trace has seen.
        """
        for key in self._dirty:
            held = self.open.get(key) or self._closed.get(key) or self._forgotten[key]
            yield _state_key(key), held.dump()
        for key in sorted(self._gone):
            if key not in self._dirty:
                yield _state_key(key), None
        # A trace that was forgotten and then heard of again is held: its key must not go.
        self._gone = {key for key in self._forgotten if key not in self.open and key not in self._closed}
        self._forgotten.clear()
        self._dirty.clear()

    def restore(self, name: str, data: bytes, now_us: int) -> TraceKey | None:
        """Take back one key that `dump_dirty` gave; ValueError when it is not one.

        Parameters
        ----------
        name : str
            The key.
        data : bytes
            Its value.
        now_us : int
            Clock of the checkpoint: what was to be forgotten by then is; unit: microseconds since 1970-01-01 UTC.

        Returns
        -------
        TraceKey or None
            The trace, when it is open.
        """
        trace_id, _, tenant = name.removeprefix(KEY_PREFIX).partition(":")
        key = (trace_id, tenant)
        held, dropped = load_trace(data, self._policies)
        if dropped:
            self._count["dropped_decisions"] += dropped
        if isinstance(held, Trace):
            self.open[key] = held
            return key
        if held.quiet_at + self._horizon > now_us:
            self._closed.keep(key, held)
        else:
            self._gone.add(key)
        return None

    def _enter_late(self, key: TraceKey, marker: Marker, folded: int, kind: str, offset: int) -> bool:
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

    def _forget(self, key: TraceKey, at: int, quiet_at: int) -> None:
        self._forgotten[key] = Marker(at, quiet_at, ())
        self._dirty[key] = None
        self._count["forgotten_traces"] += 1


def _state_key(key: TraceKey) -> str:
    return f"{KEY_PREFIX}{key[0]}:{key[1]}"
