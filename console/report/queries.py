"""What the report asks ClickHouse: views only, values as server-side parameters."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from page.overview import BINS
from page.store import ARMS, POLICIES, SERIES, Row
from sinks.clickhouse import connect
from steersman.errors import SteersmanError

LATE = 0.25
"""Share of the time, the last one, that counts as "now"."""
NEWEST_ALERTS = 20

_OURS = "tenant = {tenant:String} AND ({policy:String} = '' OR policy = {policy:String})"
_SPAN = f"{_OURS} AND decided_at >= {{since:DateTime64(6)}} AND decided_at < {{until:DateTime64(6)}}"
_EXTENT = f"SELECT min(decided_at) AS first, max(decided_at) AS last, count() AS n FROM v_rewards WHERE {_SPAN}"
_GROUPS = f"""
SELECT policy, mode = 'HOLDOUT' AS control, decided_at >= {{late:DateTime64(6)}} AS late,
    count() AS n, countIf(r.explored) AS n_explored,
    countIf(isNotNull(r.utility)) AS utility_n, sum(ifNull(r.utility, 0)) AS utility_sum, sum(ifNull(r.utility * r.utility, 0)) AS utility_squares,
    countIf(isNotNull(r.quality) AND NOT r.quality_defaulted) AS quality_n,
    sumIf(ifNull(r.quality, 0), NOT r.quality_defaulted) AS quality_sum,
    sumIf(ifNull(r.quality * r.quality, 0), NOT r.quality_defaulted) AS quality_squares,
    n AS cost_n, sum(toFloat64(r.cost_micro_usd)) AS cost_sum, sum(pow(toFloat64(r.cost_micro_usd), 2)) AS cost_squares,
    n AS latency_n, sum(toFloat64(r.latency_us)) AS latency_sum, sum(pow(toFloat64(r.latency_us), 2)) AS latency_squares
FROM v_rewards AS r WHERE {_SPAN} AND mode IN ('LIVE', 'CANARY', 'HOLDOUT') GROUP BY policy, control, late
"""
_TAKEN = f"""
SELECT policy, arm, count() AS n,
    sum(w) AS weight, sum(w * w) AS weight_squares,
    sum(w * cost) AS cost_sum, sum(w * w * cost) AS cost_cross, sum(w * w * cost * cost) AS cost_squares,
    sum(w * latency) AS latency_sum, sum(w * w * latency) AS latency_cross, sum(w * w * latency * latency) AS latency_squares,
    sumIf(w, judged) AS quality_weight, sumIf(w * w, judged) AS quality_weight_squares,
    sumIf(w * value, judged) AS quality_sum, sumIf(w * w * value, judged) AS quality_cross, sumIf(w * w * value * value, judged) AS quality_squares
FROM
(
    SELECT policy, arm, 1 / propensity AS w, toFloat64(cost_micro_usd) AS cost, toFloat64(latency_us) AS latency,
        isNotNull(quality) AND NOT quality_defaulted AS judged, ifNull(quality, 0) AS value
    FROM v_rewards WHERE {_SPAN} AND mode IN ('LIVE', 'CANARY') AND propensity > 0 AND propensity < 1
)
GROUP BY policy, arm ORDER BY policy, n DESC, arm
"""
_OBJECTIVES = """
SELECT policy, argMax(objective, (epoch, version)) AS newest FROM v_policies
WHERE tenant = {tenant:String} AND ({policy:String} = '' OR policy = {policy:String}) GROUP BY policy
"""
_HEALTH = f"""
SELECT count() AS n, countIf(mode = 'FALLBACK') AS n_fallback, countIf(isNull(quality)) AS n_unjudged,
    countIf(quality_defaulted) AS n_defaulted, countIf(closed_by = 'WINDOW') AS n_window,
    minIf(propensity, mode IN ('LIVE', 'CANARY')) AS least_propensity
FROM v_rewards WHERE {_SPAN}
"""
_TIME = "ts >= {since:DateTime64(6)} AND ts < {until:DateTime64(6)}"
_EVENTS = f"""
SELECT count() AS n, uniq(trace_id) AS traces, countIf(status NOT IN ('OK', 'UNKNOWN', '')) AS n_failed,
    countIf(kind = 'MODEL_CALL') AS n_calls, countIf(kind = 'MODEL_CALL' AND isNull(cost_micro_usd)) AS n_unpriced
FROM v_events WHERE tenant = {{tenant:String}} AND {_TIME}
"""
_DETECTORS = f"""
SELECT detector, severity, policy, count() AS n, min(ts) AS first, max(ts) AS last
FROM v_alerts WHERE {_OURS} AND {_TIME} GROUP BY detector, severity, policy ORDER BY n DESC, detector, policy LIMIT 200
"""
_ALERTS = f"""
SELECT ts, detector, severity, policy, agent, trace_id, message
FROM v_alerts WHERE {_OURS} AND {_TIME} ORDER BY ts DESC LIMIT {NEWEST_ALERTS}
"""
_DEAD = f"""
SELECT stage, reason, count() AS n, max(ts) AS last
FROM v_dead_letters WHERE tenant IN ('', {{tenant:String}}) AND {_TIME} GROUP BY stage, reason ORDER BY n DESC, stage, reason LIMIT 100
"""
_LEDGER = """
SELECT stage, outcome, reason, sum(n) AS records FROM v_ledger
WHERE tenant = {tenant:String} AND minute >= toStartOfMinute({since:DateTime64(6)}) AND minute < {until:DateTime64(6)}
GROUP BY stage, outcome, reason ORDER BY stage, outcome, reason LIMIT 200
"""
_EVER = dt.datetime(1971, 1, 1, tzinfo=dt.UTC), dt.datetime(2200, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes
    ----------
    tenant, policy
        Whose; one policy, or all with None.
    since, until
        Decisions made from then on and before then; None is no limit.
    """

    tenant: str
    policy: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None


@dataclass(frozen=True)
class Rows:
    """What ClickHouse answered, by query; `step` is the width of a bin, in seconds, `first` where bins begin, in seconds since 1970."""

    since: dt.datetime
    until: dt.datetime
    first: int
    step: int
    groups: list[Row]
    series: list[Row]
    arms: list[Row]
    taken: list[Row]
    policies: list[Row]
    objectives: list[Row]
    health: Row
    events: Row
    detectors: list[Row]
    alerts: list[Row]
    dead: list[Row]
    ledger: list[Row]


def read(url: str, request: Request) -> Rows | None:
    """Read all that the report needs; None when there is no reward in that time.

    Raises
    ------
    Unreachable
        When no store answers.
    SteersmanError
        With ClickHouse's own words when it refuses a query.
    """
    asked: dict[str, Any] = {"tenant": request.tenant, "policy": request.policy or ""}
    with contextlib.closing(connect(url)) as client:

        def rows(sql: str, **more: Any) -> list[Row]:
            try:
                result = client.query(sql, parameters={**asked, **more})
            except ClickHouseError as e:
                raise SteersmanError(
                    f"ClickHouse refused a query of the report: {str(e).splitlines()[0]}; 'steersman doctor' says whether the tables are up to date"
                ) from e
            return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]

        extent = rows(_EXTENT, since=request.since or _EVER[0], until=request.until or _EVER[1])[0]
        if not extent["n"]:
            return None
        since, until = request.since or extent["first"], request.until or extent["last"] + dt.timedelta(microseconds=1)
        step = max(1, math.ceil((until - since).total_seconds() / (BINS - 1)))
        first = math.floor(since.timestamp()) // step * step
        span = {"since": since, "until": until}
        late = since + (until - since) * (1.0 - LATE)
        return Rows(
            since, until, first, step,
            rows(_GROUPS, **span, late=late),
            rows(SERIES, **span, step=step),
            rows(ARMS, **span, step=step),
            rows(_TAKEN, **span),
            rows(POLICIES),
            rows(_OBJECTIVES),
            rows(_HEALTH, **span)[0],
            rows(_EVENTS, **span)[0],
            rows(_DETECTORS, **span),
            rows(_ALERTS, **span),
            rows(_DEAD, **span),
            rows(_LEDGER, **span),
        )  # fmt: skip
