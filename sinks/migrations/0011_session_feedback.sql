-- Judgements of whole sessions (docs/doors.md): they come with a trace id of their own, since Kafka's key is the trace.

-- One row per judgement of a session made in [since, until), and per trace of that session that did something in it; a
-- judgement whose session did nothing in the span is one row with trace_id ''. A repeated judgement counts once.
CREATE OR REPLACE VIEW v_session_feedback AS
WITH judged AS
(
    SELECT tenant, session_id, event_id, ts, metric, value, label, comment, source
    FROM trace_events FINAL
    WHERE tenant = {tenant:String} AND ts >= {since:DateTime64(6, 'UTC')} AND ts < {until:DateTime64(6, 'UTC')}
        AND kind = 'FEEDBACK' AND session_id != '' AND JSONExtractString(attributes, 'steersman.target') = 'session'
    LIMIT 1 BY event_id
)
SELECT
    f.tenant AS tenant,
    f.session_id AS session_id,
    f.event_id AS event_id,
    f.ts AS ts,
    f.metric AS metric,
    f.value AS value,
    f.label AS label,
    f.comment AS comment,
    f.source AS source,
    t.trace_id AS trace_id,
    if(t.trace_id = '', NULL, t.begun) AS trace_started_at,
    if(t.trace_id = '', NULL, t.ended) AS trace_ended_at,
    t.n_decisions AS decisions,
    t.n_failed AS failed,
    t.cost AS cost_micro_usd
FROM judged AS f
LEFT JOIN
(
    SELECT
        e.session_id AS session_id,
        e.trace_id AS trace_id,
        min(e.ts - toIntervalMicrosecond(ifNull(e.duration_us, 0))) AS begun,
        max(e.ts) AS ended,
        countIf(e.kind = 'DECISION') AS n_decisions,
        countIf(e.kind != 'DECISION' AND e.status != 'OK') AS n_failed,
        sum(ifNull(e.cost_micro_usd, 0)) AS cost
    FROM
    (
        SELECT session_id, trace_id, kind, ts, duration_us, status, cost_micro_usd
        FROM trace_events FINAL
        WHERE tenant = {tenant:String} AND ts >= {since:DateTime64(6, 'UTC')} AND ts < {until:DateTime64(6, 'UTC')}
            AND kind NOT IN ('FEEDBACK', 'END') AND session_id IN (SELECT session_id FROM judged)
        LIMIT 1 BY event_id
    ) AS e
    GROUP BY session_id, trace_id
) AS t ON f.session_id = t.session_id;

-- The columns of before; a trace that is nothing but judgements in the span is none of the session's traces.
CREATE OR REPLACE VIEW v_sessions AS
SELECT
    tenant,
    t.session_id AS session_id,
    countIf(t.spans > 0 OR t.decisions > 0) AS traces,
    min(t.started_at) AS started_at,
    max(t.ended_at) AS ended_at,
    sum(t.duration_ms) AS busy_ms,
    arraySort(groupUniqArrayArray(t.agents)) AS agents,
    sum(t.decisions) AS decisions,
    sum(t.model_calls) AS model_calls,
    sum(t.tool_calls) AS tool_calls,
    sum(t.feedbacks) AS feedbacks,
    sum(t.failed) AS failed,
    sum(t.cost_micro_usd) AS cost_micro_usd,
    sum(t.cost_micro_usd) / 1000000 AS cost_usd,
    sum(t.unpriced) AS unpriced
FROM v_traces(tenant = {tenant:String}, since = {since:DateTime64(6, 'UTC')}, until = {until:DateTime64(6, 'UTC')}) AS t
WHERE t.session_id != ''
GROUP BY tenant, t.session_id;
