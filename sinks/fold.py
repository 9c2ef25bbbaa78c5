"""Adding up the traces whose events have settled, a row each in ``trace_totals``, so that questions about many traces read those.

By tenant, in the order in which events were stored (``ingested_at``): the traces of the next events are worked out whole, their
rows are inserted, and ``trace_folds`` says up to where that is done. Until it says so the rows count for nothing, so a fold may
end between any two statements; it is simply made again. What is stored later about a folded trace makes the views read that
trace from its events (``unfolded_traces``), until the next fold. Two folds at a time do no harm: a trace has one row, of the newer.

It rests on one thing: an insert that began `settle_s` ago is visible or will never be.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from steersman.fault_points import reach

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

SETTLE_S = 300.0
"""Events stored more recently are left for the next fold; unit: seconds."""
MAX_EVENTS = 2_000_000
"""Events that make one step, unless more were stored in ten seconds: what bounds its memory."""
LEAVE_S = 300.0
"""Rows of a fold that has not said that it is through are left to it for that long, then they are deleted; unit: seconds."""
WAIT_S = 30.0
"""Before all is folded anew: as long as a reader's question may take that began when all was still folded; unit: seconds."""
_STATEMENT_S = 150
_EVER = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICRO = dt.timedelta(microseconds=1)
_OPEN = (
    "SELECT (SELECT count() FROM forget_marks WHERE ingested_at > now() - INTERVAL 1 DAY), "
    "(SELECT groupBitXor(cityHash64(request)) FROM forgotten FINAL)"
)
"""Marks of deletions that are under way, and what changes with every deletion made."""
_HORIZON = "SELECT toDateTime(now() - toIntervalMillisecond({ms:Int64}), 'UTC')"
_MARKS = "SELECT tenant, argMax(folded_before, version), max(version) FROM trace_folds GROUP BY tenant"
_NEW = "SELECT DISTINCT tenant FROM trace_events WHERE tenant NOT IN (SELECT tenant FROM trace_folds)"
_REFOLDS = "SELECT DISTINCT tenant FROM trace_refolds FINAL WHERE NOT done"
_TEN_SECONDS = (
    "SELECT toStartOfInterval(ingested_at, INTERVAL 10 SECOND) AS at, count() FROM trace_events WHERE tenant = {tenant:String} "
    "AND ingested_at >= {since:DateTime('UTC')} AND ingested_at < {until:DateTime('UTC')} GROUP BY at ORDER BY at LIMIT 10000"
)
_FRESH = "FROM trace_events WHERE tenant = {tenant:String} AND ingested_at >= {since:DateTime('UTC')} AND ingested_at < {until:DateTime('UTC')}"
_AGAIN = "FROM trace_refolds FINAL WHERE tenant = {tenant:String} AND NOT done"
_TRACES = f"(SELECT cityHash64(trace_id) {_FRESH} UNION ALL SELECT cityHash64(trace_id) {_AGAIN})"
_BOUNDS = f"""
SELECT min(first), max(last), count() FROM
(
    SELECT min(ts) AS first, max(ts) AS last {_FRESH} HAVING count() > 0
    UNION ALL
    SELECT min(ts), max(ts) FROM trace_events WHERE tenant = {{tenant:String}} AND trace_id IN (SELECT trace_id {_AGAIN}) HAVING count() > 0
    UNION ALL
    SELECT min(first_at), max(last_at) FROM trace_totals WHERE tenant = {{tenant:String}} AND trace_hash IN {_TRACES} HAVING count() > 0
)
"""
_VERSION = (
    "SELECT greatest(toUInt64(toUnixTimestamp64Micro(now64(6))), {newest:UInt64} + 1, "
    "highest + 1), (SELECT max(version) FROM trace_totals WHERE tenant = {tenant:String}) AS highest"
)
_COLUMNS = (
    "last_at", "session_id", "started_at", "duration_ms", "agents", "spans", "decisions", "model_calls", "tool_calls", "feedbacks",
    "failed", "input_tokens", "output_tokens", "cost_micro_usd", "unpriced", "ended", "step_session", "step_sessions", "step_ended_at",
    "step_cost",
)  # fmt: skip
_FOLD = f"""
INSERT INTO trace_totals (tenant, trace_id, trace_hash, placed_at, first_at, {", ".join(_COLUMNS)}, version, ingested_at)
SELECT {{tenant:String}}, t.trace_id, cityHash64(t.trace_id), if(k.placed_at = toDateTime64(0, 6, 'UTC'), t.first_at, k.placed_at), t.first_at,
    {", ".join(f"t.{name}" for name in _COLUMNS)}, {{version:UInt64}}, t.stored_at
FROM
(
    SELECT * FROM events_by_trace(tenant = {{tenant:String}}, since = {{first:DateTime64(6, 'UTC')}}, until = {{end:DateTime64(6, 'UTC')}})
    WHERE cityHash64(trace_id) IN {_TRACES}
) AS t
LEFT JOIN
(
    SELECT trace_id, min(placed_at) AS placed_at FROM trace_totals WHERE tenant = {{tenant:String}} AND trace_hash IN {_TRACES} GROUP BY trace_id
) AS k ON t.trace_id = k.trace_id
"""
_MADE = "SELECT count() FROM trace_totals WHERE tenant = {tenant:String} AND version = {version:UInt64}"
_UNDO = (
    "ALTER TABLE trace_totals DELETE WHERE tenant = {tenant:String} AND version BETWEEN {low:UInt64} AND {high:UInt64}"
)
_COMMIT = "INSERT INTO trace_folds (tenant, folded_before, version) SELECT {tenant:String}, {until:DateTime('UTC')}, {version:UInt64}"
_DONE = (
    "INSERT INTO trace_refolds (tenant, trace_id, version, done) SELECT tenant, trace_id, {version:UInt64}, true "
    f"{_AGAIN} AND version < {{version:UInt64}}"
)

Step = Callable[["Folded"], None]


@dataclass(frozen=True)
class Folded:
    """What was folded so far.

    Attributes
    ----------
    events, traces
        Events that were stored since the last time, and traces added up; of a trace with events in several steps each counts.
    steps
        Inserts made.
    put_off
        Something was left for the next time, since a deletion (`steersman forget`) was under way, or another fold is, or was cut off.
    """

    events: int = 0
    traces: int = 0
    steps: int = 0
    put_off: bool = False


def fold(
    client: Client,
    *,
    settle_s: float = SETTLE_S,
    until: dt.datetime | None = None,
    leave_s: float = LEAVE_S,
    again: bool = False,
    wait: Callable[[float], object] = time.sleep,
    max_events: int = MAX_EVENTS,
    threads: int = 0,
    stopped: Callable[[], bool] = lambda: False,
    step: Step = lambda done: None,
) -> Folded:
    """Add up what has settled since the last time.

    Parameters
    ----------
    client
        Connected to the database, with the right to insert, and to delete from ``trace_totals``.
    settle_s
        As `SETTLE_S`; 0 only where nobody inserts.
    until
        Only events stored before this time; None for all that has settled.
    leave_s
        As `LEAVE_S`.
    again
        Fold everything anew, also what is on record as folded. Until it is through the views read events.
    wait
        Waits `WAIT_S` seconds.
    max_events
        As `MAX_EVENTS`.
    threads
        Most that a statement takes; 0 for as many as the server likes.
    stopped
        Asked between two steps whether to end here.
    step
        Told of each step.

    Returns
    -------
    Folded
        What was done.
    """
    done = Folded()
    settings: dict[str, Any] = {"max_execution_time": _STATEMENT_S, **({"max_threads": threads} if threads else {})}  # fmt: skip
    marks = {tenant: (before, version) for tenant, before, version in client.query(_MARKS).result_rows}
    if again:
        for tenant, (_, version) in marks.items():
            newer, _ = _versions(client, tenant, version)
            client.command(_COMMIT, parameters={"tenant": tenant, "until": _EVER, "version": newer})
            marks[tenant] = (_EVER, newer)
        wait(WAIT_S)
    horizon = client.query(_HORIZON, parameters={"ms": int(settle_s * 1000)}).result_rows[0][0]
    horizon = horizon if until is None else min(horizon, until)
    lost = {name for name, *_ in client.query(_REFOLDS).result_rows}
    for tenant in sorted({*marks, *lost, *(name for name, *_ in client.query(_NEW).result_rows)}):
        before, version = marks.get(tenant, (_EVER, 0))
        windows = _windows(client, tenant, before, horizon, max_events)
        for first, last, events in windows or ([(before, before, 0)] if tenant in lost else []):
            if stopped():
                return done
            step_made = _fold(client, {"tenant": tenant, "since": first, "until": last}, version, leave_s, settings)
            if step_made is None:
                return replace(done, put_off=True)
            version, traces = step_made
            done = Folded(done.events + events, done.traces + traces, done.steps + bool(traces))
            step(done)
    return done


def _windows(
    client: Client, tenant: str, since: dt.datetime, until: dt.datetime, max_events: int
) -> Sequence[tuple[dt.datetime, dt.datetime, int]]:
    """Cut a tenant's events by the time when they were stored; the last window reaches up to `until`."""
    if since >= until:
        return []
    counted = client.query(_TEN_SECONDS, parameters={"tenant": tenant, "since": since, "until": until}).result_rows
    found: list[tuple[dt.datetime, dt.datetime, int]] = []
    first, events = since, 0
    for at, n in counted:
        if events and events + n > max_events:
            found.append((first, at, events))
            first, events = at, 0
        events += n
    # Of very many, the rest is for the next time: where the list was cut off its last entry may be.
    end = until if len(counted) < 10_000 else min(until, counted[-1][0] + dt.timedelta(seconds=10))
    return [*found, (first, end, events)]


def _fold(
    client: Client, asked: Mapping[str, Any], newest: int, leave_s: float, settings: Mapping[str, Any]
) -> tuple[int, int] | None:
    """Fold one window; returns version and traces, None when something else has to end before."""
    version, highest = _versions(client, asked["tenant"], newest)
    deletions = client.query(_OPEN).result_rows[0]
    if deletions[0] or (highest > newest and version - highest < leave_s * 1e6):
        return None
    if highest > newest:
        _undo(client, asked["tenant"], newest + 1, highest)
    first, last, parts = client.query(_BOUNDS, parameters=dict(asked), settings=dict(settings)).result_rows[0]
    made = 0
    which = {"tenant": asked["tenant"], "version": version}
    if parts:
        span = {"first": first, "end": last + _MICRO}
        client.command(_FOLD, parameters={**asked, **which, **span}, settings=dict(settings))
        reach("fold.inserted")
        made = int(client.query(_MADE, parameters=which).result_rows[0][0])
        # What was read may have been deleted before it was written: such rows are not to stay.
        if client.query(_OPEN).result_rows[0] != deletions:
            _undo(client, asked["tenant"], version, version)
            return None
    client.command(_COMMIT, parameters={**which, "until": asked["until"]})
    reach("fold.committed")
    client.command(_DONE, parameters=which)
    return version, made


def _undo(client: Client, tenant: str, low: int, high: int) -> None:
    """Delete rows that never counted."""
    client.command(_UNDO, parameters={"tenant": tenant, "low": low, "high": high}, settings={"mutations_sync": 2})


def _versions(client: Client, tenant: str, newest: int) -> tuple[int, int]:
    """Return a version above all that a tenant has (microseconds since 1970, as long as the clock goes on), and its highest in use."""
    version, highest = client.query(_VERSION, parameters={"tenant": tenant, "newest": newest}).result_rows[0]
    return int(version), int(highest)
