-- Settled traces are added up once: questions about many traces read a row of each instead of its events. Rows are made by the sink
-- in the background, or by `steersman fold` (sinks/fold.py). A trace is read from its row only while every event of it that is stored
-- was stored before the row's fold, and all of them lie in the span that is asked about; else from its events, as ever. So
-- answers never depend on what has been folded.

-- By which the newest events are found: the rest of a table is not looked at. Parts that are there get it in the background.
ALTER TABLE trace_events ADD INDEX IF NOT EXISTS by_ingestion ingested_at TYPE minmax GRANULARITY 1;

ALTER TABLE trace_events MATERIALIZE INDEX by_ingestion;

-- One row for each trace: what v_traces says of it, and what is needed to know when to.
--   * placed_at: where the row lies, an event's time; it stays when the trace is folded again, so that the old row is replaced;
--   * first_at, last_at: times of its first and last event;
--   * step_session, step_sessions: session of its steps (no feedback, no end), and how many different ones they name;
--   * version: the fold that made the row. It counts once the fold is on record in trace_folds;
--   * ingested_at: of its newest event, so that the row goes when that goes.
CREATE TABLE IF NOT EXISTS trace_totals
(
    tenant        LowCardinality(String),
    trace_id      String CODEC(ZSTD(1)),
    trace_hash    UInt64 CODEC(NONE),
    placed_at     DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    first_at      DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    last_at       DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    session_id    String CODEC(ZSTD(1)),
    started_at    DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    duration_ms   Nullable(Float64) CODEC(ZSTD(1)),
    agents        Array(String) CODEC(ZSTD(1)),
    spans         UInt64 CODEC(T64, ZSTD(1)),
    decisions     UInt64 CODEC(T64, ZSTD(1)),
    model_calls   UInt64 CODEC(T64, ZSTD(1)),
    tool_calls    UInt64 CODEC(T64, ZSTD(1)),
    feedbacks     UInt64 CODEC(T64, ZSTD(1)),
    failed        UInt64 CODEC(T64, ZSTD(1)),
    input_tokens  Int64 CODEC(T64, ZSTD(1)),
    output_tokens Int64 CODEC(T64, ZSTD(1)),
    cost_micro_usd Int64 CODEC(T64, ZSTD(1)),
    unpriced      UInt64 CODEC(T64, ZSTD(1)),
    ended         UInt8 CODEC(T64, ZSTD(1)),
    step_session  String CODEC(ZSTD(1)),
    step_sessions UInt64 CODEC(T64, ZSTD(1)),
    step_ended_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    step_cost     Int64 CODEC(T64, ZSTD(1)),
    version       UInt64 CODEC(T64, ZSTD(1)),
    ingested_at   DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1)),
    INDEX by_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_first first_at TYPE minmax GRANULARITY 1,
    INDEX by_last last_at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(placed_at)
PRIMARY KEY (tenant, toStartOfHour(placed_at))
ORDER BY (tenant, toStartOfHour(placed_at), trace_hash, trace_id)
TTL ingested_at + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- How far a tenant's events are folded: those stored before folded_before, as of the highest version. One row a day stays.
CREATE TABLE IF NOT EXISTS trace_folds
(
    tenant        LowCardinality(String),
    folded_before DateTime('UTC') CODEC(Delta, ZSTD(1)),
    version       UInt64 CODEC(T64, ZSTD(1)),
    ingested_at   DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, toDate(ingested_at))
TTL ingested_at + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- Traces that lost events to `steersman forget`: read from their events until they are folded again (`done`).
CREATE TABLE IF NOT EXISTS trace_refolds
(
    tenant      LowCardinality(String),
    trace_id    String CODEC(ZSTD(1)),
    version     UInt64 CODEC(T64, ZSTD(1)),
    done        Bool,
    ingested_at DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, trace_id)
TTL ingested_at + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- One row: which traces of a span have to be read from their events, by hash, where in the span these events are (before `low`, and
-- from `high` on), and the newest fold on record. More than necessary does no harm. With `mixed`, also traces whose steps name
-- several sessions, for who asks about sessions. Below the other views, no contract.
CREATE OR REPLACE VIEW unfolded_traces AS
WITH
    (SELECT (argMax(folded_before, f.version), max(f.version)) FROM trace_folds AS f WHERE tenant = {tenant:String}) AS mark,
    (
        SELECT (groupUniqArray(h), min(at))
        FROM
        (
            SELECT cityHash64(trace_id) AS h, ts AS at
            FROM trace_events
            WHERE tenant = {tenant:String} AND ts >= {since:DateTime64(6, 'UTC')} AND ts < {until:DateTime64(6, 'UTC')}
                AND ingested_at >= mark.1
            UNION ALL
            -- One that is done counts for who knows of the fold that did it.
            SELECT cityHash64(trace_id), {since:DateTime64(6, 'UTC')}
            FROM trace_refolds FINAL
            WHERE tenant = {tenant:String} AND (NOT done OR version > mark.2)
            UNION ALL
            SELECT 0, {until:DateTime64(6, 'UTC')}
        )
    ) AS fresh
SELECT
    arrayConcat(fresh.1, groupUniqArray(h)) AS hashes,
    max(before) AS low,
    least(min(after), fresh.2) AS high,
    mark.2 AS version
FROM
(
    -- Of traces with newer events, those that were folded.
    SELECT trace_hash AS h, {since:DateTime64(6, 'UTC')} AS before, first_at AS after
    FROM trace_totals
    WHERE tenant = {tenant:String} AND placed_at >= {since:DateTime64(6, 'UTC')} AND placed_at < {until:DateTime64(6, 'UTC')}
        AND trace_hash IN (SELECT arrayJoin(fresh.1))
    UNION ALL
    -- Traces across the beginning of the span, and across its end.
    SELECT trace_hash, last_at + toIntervalMicrosecond(1), {until:DateTime64(6, 'UTC')}
    FROM trace_totals
    WHERE tenant = {tenant:String} AND first_at < {since:DateTime64(6, 'UTC')} AND last_at >= {since:DateTime64(6, 'UTC')}
    UNION ALL
    SELECT trace_hash, {since:DateTime64(6, 'UTC')}, first_at
    FROM trace_totals
    WHERE tenant = {tenant:String} AND first_at < {until:DateTime64(6, 'UTC')} AND last_at >= {until:DateTime64(6, 'UTC')}
    UNION ALL
    SELECT trace_hash, {since:DateTime64(6, 'UTC')}, first_at
    FROM trace_totals
    WHERE {mixed:Bool} AND tenant = {tenant:String} AND step_sessions > 1
        AND placed_at >= {since:DateTime64(6, 'UTC')} AND placed_at < {until:DateTime64(6, 'UTC')}
    UNION ALL
    SELECT 0, {since:DateTime64(6, 'UTC')}, {until:DateTime64(6, 'UTC')}
);

-- Traces worked out from their events in [since, until): what a fold stores. Below the other views, no contract.
CREATE OR REPLACE VIEW events_by_trace AS
SELECT
    trace_id,
    first_at,
    last_at,
    session_id,
    if(steps = 0, begun_any, begun_step) AS started_at,
    if(steps = 0, NULL, dateDiff('microsecond', begun_step, step_ended_at) / 1000) AS duration_ms,
    agents,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 4), codes, nths)) AS spans,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 0), codes, nths)) AS decisions,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 1), codes, nths)) AS model_calls,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 2), codes, nths)) AS tool_calls,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 3), codes, nths)) AS feedbacks,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 5), codes, nths)) AS failed,
    arraySum((n, nth) -> if(nth = 1, n, 0), inputs, nths) AS input_tokens,
    arraySum((n, nth) -> if(nth = 1, n, 0), outputs, nths) AS output_tokens,
    arraySum((n, nth) -> if(nth = 1, n, 0), costs, nths) AS cost_micro_usd,
    toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 6), codes, nths)) AS unpriced,
    ends > 0 AS ended,
    step_session,
    step_sessions,
    step_ended_at,
    arraySum((n, c, nth) -> if(nth = 1 AND (bitTest(c, 0) OR bitTest(c, 4)), n, 0), costs, codes, nths) AS step_cost,
    stored_at
FROM
(
    SELECT
        trace_id,
        min(e.ts) AS first_at,
        max(e.ts) AS last_at,
        max(e.session_id) AS session_id,
        countIf(is_step) AS steps,
        min(begun) AS begun_any,
        minIf(begun, is_step) AS begun_step,
        maxIf(e.ts, is_step) AS step_ended_at,
        maxIf(e.session_id, is_step) AS step_session,
        uniqExactIf(e.session_id, is_step) AS step_sessions,
        arraySort(groupUniqArrayIf(toString(e.agent), e.agent != '')) AS agents,
        countIf(kind = 'END') AS ends,
        groupArray(code) AS codes,
        arrayEnumerateUniq(arrayMap(c -> bitShiftRight(c, 8), codes)) AS nths,
        groupArray(ifNull(e.input_tokens, 0)) AS inputs,
        groupArray(ifNull(e.output_tokens, 0)) AS outputs,
        groupArray(ifNull(e.cost_micro_usd, 0)) AS costs,
        max(e.ingested_at) AS stored_at
    FROM
    (
        SELECT
            trace_id, session_id, agent, kind, ts, input_tokens, output_tokens, cost_micro_usd, ingested_at,
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

-- One row per trace that did something in [since, until), with the events of that span alone: of settled traces by their totals, of
-- the others by their events. Which are which is asked once (a scalar), so that no trace is in both or in neither. The second branch
-- says again what events_by_trace says: to pass on what was found would take expressions as a view's arguments, which were not tried
-- on the server that docker-compose.yml pins.
CREATE OR REPLACE VIEW v_traces AS
WITH
    (
        SELECT (hashes, low, high, version)
        FROM unfolded_traces(tenant = {tenant:String}, since = {since:DateTime64(6, 'UTC')}, until = {until:DateTime64(6, 'UTC')}, mixed = 0)
    ) AS unfolded
SELECT
    toLowCardinality({tenant:String}) AS tenant,
    trace_id,
    session_id,
    started_at,
    last_at AS ended_at,
    duration_ms,
    agents,
    spans,
    decisions,
    model_calls,
    tool_calls,
    feedbacks,
    failed,
    input_tokens,
    output_tokens,
    cost_micro_usd,
    cost_micro_usd / 1000000 AS cost_usd,
    unpriced,
    ended
FROM
(
    SELECT
        trace_id, session_id, started_at, last_at, duration_ms, agents, spans, decisions, model_calls, tool_calls, feedbacks, failed,
        input_tokens, output_tokens, cost_micro_usd, unpriced, ended
    FROM trace_totals FINAL
    WHERE tenant = {tenant:String} AND placed_at >= {since:DateTime64(6, 'UTC')} AND placed_at < {until:DateTime64(6, 'UTC')}
        AND first_at >= {since:DateTime64(6, 'UTC')} AND last_at < {until:DateTime64(6, 'UTC')}
        AND version <= unfolded.4 AND trace_hash NOT IN (SELECT arrayJoin(unfolded.1))
    UNION ALL
    SELECT
        trace_id,
        session_id,
        if(steps = 0, begun_any, begun_step) AS started_at,
        last_at,
        if(steps = 0, NULL, dateDiff('microsecond', begun_step, step_ended_at) / 1000) AS duration_ms,
        agents,
        toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 4), codes, nths)) AS spans,
        toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 0), codes, nths)) AS decisions,
        toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 1), codes, nths)) AS model_calls,
        toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 2), codes, nths)) AS tool_calls,
        toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 3), codes, nths)) AS feedbacks,
        toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 5), codes, nths)) AS failed,
        arraySum((n, nth) -> if(nth = 1, n, 0), inputs, nths) AS input_tokens,
        arraySum((n, nth) -> if(nth = 1, n, 0), outputs, nths) AS output_tokens,
        arraySum((n, nth) -> if(nth = 1, n, 0), costs, nths) AS cost_micro_usd,
        toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 6), codes, nths)) AS unpriced,
        ends > 0 AS ended
    FROM
    (
        SELECT
            trace_id,
            max(e.ts) AS last_at,
            max(e.session_id) AS session_id,
            countIf(is_step) AS steps,
            min(begun) AS begun_any,
            minIf(begun, is_step) AS begun_step,
            maxIf(e.ts, is_step) AS step_ended_at,
            arraySort(groupUniqArrayIf(toString(e.agent), e.agent != '')) AS agents,
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
                AND (ts < unfolded.2 OR ts >= unfolded.3) AND cityHash64(trace_id) IN (SELECT arrayJoin(unfolded.1))
        ) AS e
        GROUP BY trace_id
    )
);

-- The columns of before. Traces whose steps are all of one session come from their totals. Judgements stand on the right since a join
-- keeps that side in memory, and they are few beside traces. The lowest bits of a code are, from bit 0: decision, failed span.
CREATE OR REPLACE VIEW v_session_feedback AS
WITH
    (
        SELECT (hashes, low, high, version)
        FROM unfolded_traces(tenant = {tenant:String}, since = {since:DateTime64(6, 'UTC')}, until = {until:DateTime64(6, 'UTC')}, mixed = 1)
    ) AS unfolded,
    judged AS
    (
        SELECT tenant, session_id, event_id, ts, metric, value, label, comment, source
        FROM trace_events FINAL
        WHERE tenant = {tenant:String} AND ts >= {since:DateTime64(6, 'UTC')} AND ts < {until:DateTime64(6, 'UTC')}
            AND kind = 'FEEDBACK' AND session_id != '' AND JSONExtractString(attributes, 'steersman.target') = 'session'
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
FROM
(
    SELECT step_session AS session_id, trace_id, started_at AS begun, step_ended_at AS ended, decisions AS n_decisions, failed AS n_failed, step_cost AS cost
    FROM trace_totals FINAL
    WHERE tenant = {tenant:String} AND placed_at >= {since:DateTime64(6, 'UTC')} AND placed_at < {until:DateTime64(6, 'UTC')}
        AND first_at >= {since:DateTime64(6, 'UTC')} AND last_at < {until:DateTime64(6, 'UTC')} AND step_sessions = 1
        AND version <= unfolded.4 AND trace_hash NOT IN (SELECT arrayJoin(unfolded.1))
    UNION ALL
    SELECT
        session_id,
        trace_id,
        begun,
        ended,
        toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 0), codes, nths)) AS n_decisions,
        toUInt64(arrayCount((c, nth) -> nth = 1 AND bitTest(c, 1), codes, nths)) AS n_failed,
        arraySum((n, nth) -> if(nth = 1, n, 0), costs, nths) AS cost
    FROM
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
                AND (ts < unfolded.2 OR ts >= unfolded.3) AND cityHash64(trace_id) IN (SELECT arrayJoin(unfolded.1))
                AND kind NOT IN ('FEEDBACK', 'END') AND session_id != ''
        ) AS e
        GROUP BY session_id, trace_id
    )
) AS t
RIGHT JOIN (SELECT * FROM judged LIMIT 1 BY event_id) AS f ON t.session_id = f.session_id;
