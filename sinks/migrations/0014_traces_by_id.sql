-- A condition on trace_id reaches the table only through keys that hold it: then a few traces cost what they hold, not what all hold.
-- A repeated event belongs to the trace of the first, as in the join.
CREATE OR REPLACE VIEW v_traces AS
SELECT
    tenant,
    trace_id,
    max(e.session_id) AS session_id,
    if(countIf(is_step) = 0, min(begun), minIf(begun, is_step)) AS started_at,
    max(e.ts) AS ended_at,
    if(countIf(is_step) = 0, NULL, dateDiff('microsecond', minIf(begun, is_step), maxIf(e.ts, is_step)) / 1000) AS duration_ms,
    arraySort(groupUniqArrayIf(toString(e.agent), e.agent != '')) AS agents,
    countIf(is_span) AS spans,
    countIf(kind = 'DECISION') AS decisions,
    countIf(kind = 'MODEL_CALL') AS model_calls,
    countIf(kind = 'TOOL_CALL') AS tool_calls,
    countIf(kind = 'FEEDBACK') AS feedbacks,
    countIf(is_span AND status != 'OK') AS failed,
    sum(ifNull(e.input_tokens, 0)) AS input_tokens,
    sum(ifNull(e.output_tokens, 0)) AS output_tokens,
    sum(ifNull(e.cost_micro_usd, 0)) AS cost_micro_usd,
    sum(ifNull(e.cost_micro_usd, 0)) / 1000000 AS cost_usd,
    countIf(kind IN ('MODEL_CALL', 'TOOL_CALL') AND isNull(e.cost_micro_usd)) AS unpriced,
    countIf(kind = 'END') > 0 AS ended
FROM
(
    SELECT
        *,
        kind NOT IN ('FEEDBACK', 'END') AS is_step,
        is_step AND kind != 'DECISION' AS is_span,
        ts - toIntervalMicrosecond(ifNull(duration_us, 0)) AS begun
    FROM
    (
        SELECT
            tenant, trace_id, session_id, agent, kind, ts, status, duration_us, input_tokens, output_tokens, cost_micro_usd
        FROM trace_events FINAL
        WHERE tenant = {tenant:String} AND ts >= {since:DateTime64(6, 'UTC')} AND ts < {until:DateTime64(6, 'UTC')}
        LIMIT 1 BY tenant, trace_id, event_id
    )
) AS e
GROUP BY tenant, trace_id;
