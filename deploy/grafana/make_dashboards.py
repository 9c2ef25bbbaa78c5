"""Write ``deploy/grafana/dashboards/*.json``: ``python deploy/grafana/make_dashboards.py``.

Every SQL reads views only (``v_*``), the contract with analysts; every PromQL names metrics of ``serving/metrics.py``. Tests run
each of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent / "dashboards"
CLICKHOUSE = {"type": "grafana-clickhouse-datasource", "uid": "clickhouse"}
PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
_LIVE = "$__timeFilter(decided_at) AND policy IN (${policy:singlequote}) AND tenant IN (${tenant:singlequote})"
_WHEN = "$__timeInterval(decided_at) AS time"
_EVENTS = "$__timeFilter(ts) AND tenant IN (${tenant:singlequote})"

Panel = tuple[str, str, str, str, str]
"""Title, what it answers, kind (timeseries, table, stat), unit, query."""

LOOP: list[Panel] = [
    (
        "Is it worth it?",
        "The policy's own decisions against the permanent control group, over the time chosen.",
        "table",
        "none",
        f"""SELECT policy, countIf(mode = 'LIVE') AS decisions, countIf(mode = 'HOLDOUT') AS control,
    avgIf(utility, mode = 'LIVE') - avgIf(utility, mode = 'HOLDOUT') AS utility_gain,
    avgIf(latency_us, mode = 'LIVE') / avgIf(latency_us, mode = 'HOLDOUT') - 1 AS latency_change,
    avgIf(cost_micro_usd, mode = 'LIVE') / avgIf(cost_micro_usd, mode = 'HOLDOUT') - 1 AS cost_change,
    avgIf(quality, mode = 'LIVE') - avgIf(quality, mode = 'HOLDOUT') AS quality_gain
FROM v_rewards WHERE {_LIVE} GROUP BY policy ORDER BY policy""",
    ),
    (
        "Utility, learned and control",
        "Does what is learned beat the baseline, on the same traffic at the same time?",
        "timeseries",
        "none",
        f"""SELECT {_WHEN}, policy, avgOrNullIf(utility, mode = 'LIVE') AS learned,
    avgOrNullIf(utility, mode IN ('HOLDOUT', 'FALLBACK')) AS baseline
FROM v_rewards WHERE {_LIVE} GROUP BY time, policy ORDER BY time""",
    ),
    (
        "Cost of a decision",
        "US dollars charged to a decision: its span's subtree.",
        "timeseries",
        "currencyUSD",
        f"SELECT {_WHEN}, policy, avg(cost_micro_usd) / 1e6 AS cost_usd FROM v_rewards WHERE {_LIVE} GROUP BY time, policy ORDER BY time",
    ),
    (
        "Latency of a decision",
        "Median and 95th percentile.",
        "timeseries",
        "ms",
        f"""SELECT {_WHEN}, policy, quantile(0.5)(latency_us) / 1000 AS p50, quantile(0.95)(latency_us) / 1000 AS p95
FROM v_rewards WHERE {_LIVE} GROUP BY time, policy ORDER BY time""",
    ),
    (
        "Quality",
        "Mean of the decisions with a judgement.",
        "timeseries",
        "none",
        f"""SELECT {_WHEN}, policy, avgOrNullIf(quality, NOT quality_defaulted) AS quality
FROM v_rewards WHERE {_LIVE} GROUP BY time, policy ORDER BY time""",
    ),
    (
        "What it chooses",
        "Share of each arm among the decisions that the policy drew.",
        "timeseries",
        "percentunit",
        """SELECT minute AS time, concat(policy, ': ', arm) AS arm, sum(decisions) / sum(sum(decisions)) OVER (PARTITION BY time, policy) AS share
FROM v_arm_share WHERE $__timeFilter(minute) AND policy IN (${policy:singlequote}) AND tenant IN (${tenant:singlequote})
GROUP BY time, policy, arm ORDER BY time""",
    ),
    (
        "Explored",
        "Share of decisions that were not the best guess, and the smallest probability logged.",
        "timeseries",
        "percentunit",
        f"""SELECT {_WHEN}, policy, avg(explored) AS explored, min(propensity) AS smallest_propensity
FROM v_rewards WHERE {_LIVE} AND mode IN ('LIVE', 'CANARY') GROUP BY time, policy ORDER BY time""",
    ),
    (
        "Versions published",
        "Rewards applied to each policy: it learns while this grows.",
        "timeseries",
        "none",
        """SELECT $__timeInterval(created_at) AS time, policy, max(version) AS version
FROM v_policies WHERE $__timeFilter(created_at) AND policy IN (${policy:singlequote}) AND tenant IN (${tenant:singlequote})
GROUP BY time, policy ORDER BY time""",
    ),
    (
        "Policies now",
        "The newest version of each, and its stage.",
        "table",
        "none",
        """SELECT policy, stage, epoch, version, arm_count, baseline, learner, created_at
FROM v_policy_latest WHERE policy IN (${policy:singlequote}) AND tenant IN (${tenant:singlequote}) ORDER BY policy""",
    ),
]
AGENTS: list[Panel] = [
    (
        "Model calls",
        "Calls a second by model.",
        "timeseries",
        "reqps",
        f"""SELECT $__timeInterval(ts) AS time, operation AS model, count() / $__interval_s AS calls
FROM v_events WHERE {_EVENTS} AND kind = 'MODEL_CALL' GROUP BY time, model ORDER BY time""",
    ),
    (
        "Spend",
        "US dollars an hour by model; calls without a known price are in the table below.",
        "timeseries",
        "currencyUSD",
        f"""SELECT $__timeInterval(ts) AS time, operation AS model, sum(cost_micro_usd) / 1e6 * 3600 / $__interval_s AS usd_an_hour
FROM v_events WHERE {_EVENTS} AND kind = 'MODEL_CALL' GROUP BY time, model ORDER BY time""",
    ),
    (
        "Tokens by model",
        "What goes in, what of it came from a cache, what comes out, what of that was reasoning.",
        "table",
        "short",
        f"""SELECT provider, operation AS model, count() AS calls, sum(input_tokens) AS input,
    sum(cached_input_tokens) / nullIf(sum(input_tokens), 0) AS cached_share, sum(output_tokens) AS output,
    sum(reasoning_tokens) AS reasoning, sum(cost_micro_usd) / 1e6 AS usd, countIf(cost_micro_usd IS NULL) AS unpriced
FROM v_events WHERE {_EVENTS} AND kind = 'MODEL_CALL' GROUP BY provider, model ORDER BY calls DESC LIMIT 50""",
    ),
    (
        "Failures",
        "Share of spans that ended in an error, a timeout or a cancellation, by agent.",
        "timeseries",
        "percentunit",
        f"""SELECT $__timeInterval(ts) AS time, agent, countIf(status != 'OK') / count() AS failed
FROM v_events WHERE {_EVENTS} AND duration_us IS NOT NULL GROUP BY time, agent ORDER BY time""",
    ),
    (
        "What fails",
        "The most frequent errors.",
        "table",
        "none",
        f"""SELECT agent, kind, operation, status, error, count() AS times, any(trace_id) AS example
FROM v_events WHERE {_EVENTS} AND status != 'OK' GROUP BY agent, kind, operation, status, error ORDER BY times DESC LIMIT 20""",
    ),
    (
        "Tools",
        "Median and 95th percentile of each tool and source.",
        "table",
        "ms",
        f"""SELECT kind, operation, count() AS calls, quantile(0.5)(duration_ms) AS p50_ms, quantile(0.95)(duration_ms) AS p95_ms,
    countIf(status != 'OK') / count() AS failed
FROM v_events WHERE {_EVENTS} AND kind IN ('TOOL_CALL', 'RETRIEVAL') GROUP BY kind, operation ORDER BY calls DESC LIMIT 50""",
    ),
    (
        "Slowest traces",
        "Wall time, spans, spend.",
        "table",
        "ms",
        f"""SELECT trace_id, any(session_id) AS session, dateDiff('millisecond', min(started_at), max(ts)) AS ms, count() AS spans,
    sum(cost_micro_usd) / 1e6 AS usd, countIf(status != 'OK') AS failed
FROM v_events WHERE {_EVENTS} AND duration_us IS NOT NULL GROUP BY trace_id ORDER BY ms DESC LIMIT 20""",
    ),
    (
        "Alerts",
        "The newest, with their evidence.",
        "table",
        "none",
        f"""SELECT ts AS time, detector, severity, policy, agent, value, threshold, message, trace_id
FROM v_alerts WHERE {_EVENTS} ORDER BY time DESC LIMIT 100""",
    ),
    (
        "Dead letters",
        "Records that no stage could use.",
        "table",
        "none",
        """SELECT ts AS time, stage, reason, message, error_topic, error_partition, error_offset
FROM v_dead_letters WHERE $__timeFilter(ts) ORDER BY time DESC LIMIT 100""",
    ),
]
OPERATIONS: list[Panel] = [
    ("Alive", "Services that answer.", "stat", "none", 'sum by (job) (up{job=~"streams|sink|doors"})'),
    ("Lag", "Records not committed, by service and topic.", "timeseries", "short", "sum by (job, topic) (steersman_consumer_lag_records)"),
    ("Records", "Input of the stages.", "timeseries", "ops", "sum by (stage) (rate(steersman_stream_records_total[$__rate_interval]))"),
    (
        "From Kafka to processed",
        "99th percentile of a record's age when a stage has processed it.",
        "timeseries",
        "s",
        "histogram_quantile(0.99, sum by (stage, le) (rate(steersman_stream_record_age_seconds_bucket[$__rate_interval])))",
    ),
    (
        "Checkpoints",
        "95th percentile.",
        "timeseries",
        "s",
        "histogram_quantile(0.95, sum by (stage, le) (rate(steersman_stream_checkpoint_seconds_bucket[$__rate_interval])))",
    ),
    ("Policies' age", "Since a new version was seen.", "timeseries", "s", "max by (policy) (steersman_policy_age_seconds)"),
    ("Rows stored", "By table.", "timeseries", "ops", "sum by (table) (rate(steersman_sink_rows_total[$__rate_interval]))"),
    (
        "Inserts",
        "95th percentile.",
        "timeseries",
        "s",
        "histogram_quantile(0.95, sum by (table, le) (rate(steersman_sink_insert_seconds_bucket[$__rate_interval])))",
    ),
    ("Rows waiting", "Read, and not stored yet.", "timeseries", "short", "sum by (table) (steersman_sink_waiting_records)"),
    ("Doors", "Answers by status.", "timeseries", "reqps", "sum by (door, status) (rate(steersman_door_requests_total[$__rate_interval]))"),
    ("Events by the doors", "That Kafka has acknowledged.", "timeseries", "ops", "sum by (kind) (rate(steersman_door_events_total[$__rate_interval]))"),
    (
        "Refused",
        "Dead letters of the stages, refusals of the doors, rejections of the sink.",
        "timeseries",
        "ops",
        "sum by (reason) (rate(steersman_stream_dead_letters_total[$__rate_interval])) or "
        "sum by (reason) (rate(steersman_door_refusals_total[$__rate_interval])) or "
        "sum by (table) (rate(steersman_sink_rejected_total[$__rate_interval]))",
    ),
    ("Memory", "Resident.", "timeseries", "bytes", 'sum by (job, instance) (process_resident_memory_bytes{job=~"streams|sink|doors"})'),
    ("CPU", "Cores in use.", "timeseries", "none", 'sum by (job) (rate(process_cpu_seconds_total{job=~"streams|sink|doors"}[$__rate_interval]))'),
]  # fmt: skip
DASHBOARDS = {
    "loop": ("Steersman: is it learning?", LOOP, True),
    "agents": ("Steersman: what agents do", AGENTS, True),
    "operations": ("Steersman: services", OPERATIONS, False),
}
VARIABLES: dict[str, dict[str, str]] = {
    "loop": {name: f"SELECT DISTINCT {name} FROM v_policy_latest ORDER BY {name}" for name in ("tenant", "policy")},
    "agents": {"tenant": "SELECT DISTINCT tenant FROM v_events WHERE ts > now() - INTERVAL 7 DAY ORDER BY tenant"},
    "operations": {},
}


def dashboard(uid: str) -> dict[str, Any]:
    """One dashboard as Grafana reads it."""
    title, panels, in_sql = DASHBOARDS[uid]
    return {
        "uid": f"steersman-{uid}",
        "title": title,
        "tags": ["steersman"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_variable(name, query) for name, query in VARIABLES[uid].items()]},
        "panels": [_panel(number, panel, in_sql) for number, panel in enumerate(panels)],
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": CLICKHOUSE,
        "query": query,
        "definition": query,
        "multi": True,
        "includeAll": True,
        "refresh": 2,
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(number: int, panel: Panel, in_sql: bool) -> dict[str, Any]:
    title, description, kind, unit, query = panel
    source = CLICKHOUSE if in_sql else PROMETHEUS
    target: dict[str, Any] = {"refId": "A", "datasource": source}
    if in_sql:
        as_series = kind == "timeseries"
        target |= {
            "rawSql": query,
            "editorType": "sql",
            "queryType": "timeseries" if as_series else "table",
            "format": 0 if as_series else 1,
        }
    else:
        target |= {"expr": query, "legendFormat": "__auto"}
    return {
        "id": number + 1,
        "title": title,
        "description": description,
        "type": kind,
        "datasource": source,
        "gridPos": {"x": number % 2 * 12, "y": number // 2 * 8, "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "options": {},
        "targets": [target],
    }


def text(uid: str) -> str:
    """The file's text."""
    return json.dumps(dashboard(uid), indent=1) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (HERE / f"{name}.json").write_text(text(name), encoding="utf-8")
        print(f"wrote {name}.json")
