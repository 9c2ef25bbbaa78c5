-- Questions about traces by all cores: repeats are taken out inside each trace. LIMIT BY did it for all events in one thread.

-- By which an event is known inside its trace: eight bytes instead of thirty-two. Parts that are there make it as they are read.
ALTER TABLE trace_events ADD COLUMN IF NOT EXISTS event_hash UInt64 MATERIALIZED cityHash64(event_id) CODEC(NONE);

-- The columns of before. Minima, maxima and sets bear repeats; what is counted or added up takes the first event of each hash:
-- a code is the hash with what the event is in its lowest bits, which are, from bit 0: decision, model call, tool call,
-- feedback, span, failed span, call without a price. The tenant is what was asked for: rows are grouped by one text in half the
-- time that they are grouped by two.
CREATE OR REPLACE VIEW v_traces AS
SELECT
    toLowCardinality({tenant:String}) AS tenant,
    trace_id,
    session AS session_id,
    if(steps = 0, begun_any, begun_step) AS started_at,
    ended_any AS ended_at,
    if(steps = 0, NULL, dateDiff('microsecond', begun_step, ended_step) / 1000) AS duration_ms,
    agent_names AS agents,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 4), codes, nths)) AS spans,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 0), codes, nths)) AS decisions,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 1), codes, nths)) AS model_calls,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 2), codes, nths)) AS tool_calls,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 3), codes, nths)) AS feedbacks,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 5), codes, nths)) AS failed,
    arraySum((n, nth) -> if(nth = 1, n, 0), inputs, nths) AS input_tokens,
    arraySum((n, nth) -> if(nth = 1, n, 0), outputs, nths) AS output_tokens,
    arraySum((n, nth) -> if(nth = 1, n, 0), costs, nths) AS cost_micro_usd,
    cost_micro_usd / 1000000 AS cost_usd,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 6), codes, nths)) AS unpriced,
    ends > 0 AS ended
FROM
(
    SELECT
        trace_id,
        max(e.session_id) AS session,
        countIf(is_step) AS steps,
        min(begun) AS begun_any,
        minIf(begun, is_step) AS begun_step,
        max(e.ts) AS ended_any,
        maxIf(e.ts, is_step) AS ended_step,
        arraySort(groupUniqArrayIf(toString(e.agent), e.agent != '')) AS agent_names,
        countIf(kind = 'END') AS ends,
        groupArray(code) AS codes,
        arrayEnumerateUniq(arrayMap(c -> bitShiftRight(c, 8), codes)) AS nths,
        groupArray(ifNull(e.input_tokens, 0)) AS inputs,
        groupArray(ifNull(e.output_tokens, 0)) AS outputs,
        groupArray(ifNull(e.cost_micro_usd, 0)) AS costs
    FROM
    (
        SELECT
            trace_id, session_id, agent, kind, ts, input_tokens, output_tokens, cost_micro_usd,
            kind NOT IN ('FEEDBACK', 'END') AS is_step,
            is_step AND kind != 'DECISION' AS is_span,
            ts - toIntervalMicrosecond(ifNull(duration_us, 0)) AS begun,
            bitOr(bitShiftLeft(event_hash, 8), (kind = 'DECISION') + 2 * (kind = 'MODEL_CALL') + 4 * (kind = 'TOOL_CALL')
                + 8 * (kind = 'FEEDBACK') + 16 * is_span + 32 * (is_span AND status != 'OK')
                + 64 * (kind IN ('MODEL_CALL', 'TOOL_CALL') AND isNull(cost_micro_usd))) AS code
        FROM trace_events FINAL
        WHERE tenant = {tenant:String} AND ts >= {since:DateTime64(6, 'UTC')} AND ts < {until:DateTime64(6, 'UTC')}
    ) AS e
    GROUP BY trace_id
);

-- The columns of before. As above; the lowest bits of a code are, from bit 0: decision, failed span.
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
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 0), t.codes, t.nths)) AS decisions,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 1), t.codes, t.nths)) AS failed,
    arraySum((n, nth) -> if(nth = 1, n, 0), t.costs, t.nths) AS cost_micro_usd
FROM judged AS f
LEFT JOIN
(
    SELECT
        e.session_id AS session_id,
        e.trace_id AS trace_id,
        min(e.ts - toIntervalMicrosecond(ifNull(e.duration_us, 0))) AS begun,
        max(e.ts) AS ended,
        groupArray(e.code) AS codes,
        arrayEnumerateUniq(arrayMap(c -> bitShiftRight(c, 8), codes)) AS nths,
        groupArray(ifNull(e.cost_micro_usd, 0)) AS costs
    FROM
    (
        SELECT
            session_id, trace_id, ts, duration_us, cost_micro_usd,
            bitOr(bitShiftLeft(event_hash, 8), (kind = 'DECISION') + 2 * (kind != 'DECISION' AND status != 'OK')) AS code
        FROM trace_events FINAL
        WHERE tenant = {tenant:String} AND ts >= {since:DateTime64(6, 'UTC')} AND ts < {until:DateTime64(6, 'UTC')}
            AND kind NOT IN ('FEEDBACK', 'END') AND session_id IN (SELECT session_id FROM judged)
    ) AS e
    GROUP BY session_id, trace_id
) AS t ON f.session_id = t.session_id;

-- The columns of before.
CREATE OR REPLACE VIEW v_sessions AS
SELECT
    toLowCardinality({tenant:String}) AS tenant,
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
GROUP BY t.session_id;
