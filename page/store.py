"""What the page asks ClickHouse: views only, values as server-side parameters."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from sinks.clickhouse import connect

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Row = dict[str, Any]

_SPAN = "tenant = {tenant:String} AND decided_at >= {since:DateTime64(6)} AND decided_at < {until:DateTime64(6)}"
_BIN = "toUnixTimestamp(toStartOfInterval(decided_at, toIntervalSecond({step:UInt32})))"
SERIES = f"""
SELECT policy, {_BIN} AS t, mode = 'HOLDOUT' AS control,
    count() AS n, countIf(r.explored) AS explored, sum(cost_micro_usd) AS cost, sum(latency_us) AS latency,
    count(r.utility) AS utility_n, sum(ifNull(r.utility, 0)) AS utility, sum(ifNull(r.utility * r.utility, 0)) AS utility_squares,
    countIf(isNotNull(r.quality) AND NOT r.quality_defaulted) AS quality_n,
    sumIf(ifNull(r.quality, 0), NOT r.quality_defaulted) AS quality
FROM v_rewards AS r WHERE {_SPAN} AND mode IN ('LIVE', 'CANARY', 'HOLDOUT') GROUP BY policy, t, control ORDER BY policy, t
"""
ARMS = f"""
SELECT policy, {_BIN} AS t, arm, count() AS n
FROM v_rewards WHERE {_SPAN} AND mode IN ('LIVE', 'CANARY') GROUP BY policy, t, arm ORDER BY policy, t
"""
TRACES = f"""
SELECT trace_id, max(ts) AS at, count() AS decisions, sum(cost_micro_usd) AS cost, max(latency_us) AS latency,
    avg(quality) AS quality, sum(failures) AS failures
FROM v_rewards WHERE {_SPAN} GROUP BY trace_id ORDER BY at DESC LIMIT 12
"""
ALERTS = """
SELECT alert_id, ts, detector, severity, policy, agent, trace_id, value, threshold, message
FROM v_alerts WHERE tenant = {tenant:String} AND ts >= {since:DateTime64(6)} ORDER BY ts DESC LIMIT 30
"""
DEAD = "SELECT count() AS n FROM v_dead_letters WHERE tenant IN ('', {tenant:String}) AND ts >= {since:DateTime64(6)}"
POLICIES = """
SELECT policy, max((epoch, version)) AS newest, argMax(stage, (epoch, version, acts)) AS stage,
    argMax(created_at, (epoch, version, acts)) AS created_at, argMax(baseline, (epoch, version, acts)) AS baseline,
    argMax(learner, (epoch, version, acts)) AS learner, argMax(arm_count, (epoch, version, acts)) AS arms
FROM v_policies WHERE tenant = {tenant:String} GROUP BY policy ORDER BY policy
"""
NEWEST = "SELECT max(decided_at) AS at, count() AS n FROM v_rewards WHERE tenant = {tenant:String}"
EVENTS = """
SELECT trace_id, span_id, parent_span_id, session_id, agent, kind, ts, started_at, duration_ms, status, error, operation, provider,
    input_tokens, output_tokens, cost_micro_usd, decision_id, policy, policy_epoch, policy_version, arm, propensity, explored,
    mode, reason, features, eligible, context, metric, value, label, comment, source, target_decision_id, target_span_id
FROM v_events WHERE tenant = {tenant:String} AND trace_id = {trace:String} ORDER BY started_at, kafka_offset LIMIT 1000
"""
REWARDS = """
SELECT decision_id, quality, quality_defaulted, cost_micro_usd, latency_us, failures, utility, closed_by
FROM v_rewards WHERE tenant = {tenant:String} AND trace_id = {trace:String} LIMIT 1000
"""
TRACE_ALERTS = """
SELECT ts, detector, severity, policy, agent, value, threshold, message
FROM v_alerts WHERE tenant = {tenant:String} AND trace_id = {trace:String} ORDER BY ts LIMIT 100
"""
SESSION_FEEDBACK = """
SELECT ts, metric, value, label, comment, source
FROM v_events WHERE tenant = {tenant:String} AND session_id = {session:String} AND kind = 'FEEDBACK'
    AND JSONExtractString(attributes, 'steersman.target') = 'session' ORDER BY ts LIMIT 100
"""
HISTORY = """
SELECT epoch, version, stage, canary_share, baseline, learner, exploration, exploration_scale, floor, objective, multipliers,
    squares, reward_spec, arms, applied_n, created_at, signed, record_bytes, toString(record_sha256) AS sha256, acts, pinned, kept
FROM v_policies WHERE tenant = {tenant:String} AND policy = {policy:String} ORDER BY epoch DESC, version DESC, acts DESC LIMIT 200
"""
CHOSEN = """
SELECT policy_epoch AS epoch, policy_version AS version, arm, count() AS n, avg(utility) AS utility
FROM v_rewards WHERE tenant = {tenant:String} AND policy = {policy:String} AND mode IN ('LIVE', 'CANARY')
    AND decided_at >= {since:DateTime64(6)} GROUP BY epoch, version, arm
"""


class Trouble(Exception):
    """ClickHouse does not answer, or refuses."""


class Store:
    """A client of ClickHouse that connects when it is needed and again after a failure. For one thread at a time.

    Parameters
    ----------
    url, tenant
        Address of ClickHouse, and whose rows are read.
    """

    def __init__(self, url: str, tenant: str) -> None:
        self._url, self.tenant = url, tenant
        self._client: Client | None = None

    def rows(self, sql: str, **parameters: Any) -> list[Row]:
        """Return the rows of a query as dictionaries.

        Raises
        ------
        Trouble
            With what is wrong, without addresses and passwords.
        """
        try:
            if self._client is None:
                self._client = connect(self._url, timeout_s=15)
            result = self._client.query(sql, parameters={"tenant": self.tenant, **parameters})
            return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]
        except Exception as error:
            self.close()
            if isinstance(error, ClickHouseError):
                code = getattr(error, "code", None)
                raise Trouble(f"ClickHouse refused a query{f' (code {code})' if code else ''}") from error
            raise Trouble("ClickHouse does not answer") from error

    def close(self) -> None:
        """Give the connection up."""
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.close()
            self._client = None


def utc_now() -> dt.datetime:
    """Return the time; aware, in UTC."""
    return dt.datetime.now(dt.UTC)


Clock = Callable[[], dt.datetime]
