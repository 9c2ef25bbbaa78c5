-- What analysts ask for: traces, sessions, costs, latencies, what policies did, and whether the numbers can be believed.
-- docs/sql.md explains every column, and has the questions that these views answer. Views that take parameters read no
-- more of a table than their span; as `v_ope` they are called like functions.

-- Traces of a session are looked up as decisions of a trace are.
ALTER TABLE trace_events ADD INDEX IF NOT EXISTS by_session session_id TYPE bloom_filter(0.01) GRANULARITY 1;

-- Floating-point columns had the server's default codec. Parts that are there keep theirs until they are merged.
ALTER TABLE trace_events MODIFY COLUMN propensity CODEC(ZSTD(1)), MODIFY COLUMN value CODEC(ZSTD(1));
ALTER TABLE rewards
    MODIFY COLUMN propensity CODEC(ZSTD(1)), MODIFY COLUMN quality CODEC(ZSTD(1)), MODIFY COLUMN utility CODEC(ZSTD(1)),
    MODIFY COLUMN context_fill CODEC(ZSTD(1)), MODIFY COLUMN trace_quality CODEC(ZSTD(1));
ALTER TABLE rollups
    MODIFY COLUMN context_fill_sum CODEC(ZSTD(1)), MODIFY COLUMN utility_sum CODEC(ZSTD(1)), MODIFY COLUMN quality_sum CODEC(ZSTD(1));

-- The columns of before. Grouping by what the copies of a repeated event have in common, instead of sorting all of them,
-- lets conditions on time, policy and trace reach the tables.
CREATE OR REPLACE VIEW v_decisions AS
SELECT
    d.tenant AS tenant,
    d.policy AS policy,
    d.decision_id AS decision_id,
    d.trace_id AS trace_id,
    d.span_id AS span_id,
    d.parent_span_id AS parent_span_id,
    d.agent AS agent,
    d.decided_at AS decided_at,
    d.arm AS arm,
    d.propensity AS propensity,
    d.explored AS explored,
    d.mode AS mode,
    d.reason AS reason,
    d.policy_epoch AS policy_epoch,
    d.policy_version AS policy_version,
    d.features AS features,
    d.eligible AS eligible,
    d.context AS context,
    r.decision_id != '' AS rewarded,
    if(rewarded, r.ts, NULL) AS rewarded_at,
    r.quality AS quality,
    if(rewarded, r.quality_defaulted, NULL) AS quality_defaulted,
    if(rewarded, r.cost_micro_usd, NULL) AS cost_micro_usd,
    cost_micro_usd / 1000000 AS cost_usd,
    if(rewarded, r.latency_us, NULL) AS latency_us,
    latency_us / 1000 AS latency_ms,
    if(rewarded, r.failures, NULL) AS failures,
    r.utility AS utility,
    if(rewarded, r.closed_by, NULL) AS closed_by,
    if(rewarded, r.reward_spec, NULL) AS reward_spec,
    d.session_id AS session_id
FROM
(
    SELECT
        tenant, policy, trace_id, decision_id, ts AS decided_at,
        any(e.span_id) AS span_id,
        any(e.parent_span_id) AS parent_span_id,
        any(e.agent) AS agent,
        any(e.arm) AS arm,
        any(e.propensity) AS propensity,
        any(e.explored) AS explored,
        any(e.mode) AS mode,
        any(e.reason) AS reason,
        any(e.policy_epoch) AS policy_epoch,
        any(e.policy_version) AS policy_version,
        any(e.features) AS features,
        any(e.eligible) AS eligible,
        any(e.context) AS context,
        any(e.session_id) AS session_id
    FROM (SELECT * FROM trace_events FINAL) AS e
    WHERE kind = 'DECISION'
    GROUP BY tenant, policy, trace_id, decision_id, ts
) AS d
LEFT ANY JOIN (SELECT * FROM rewards FINAL) AS r
    ON d.tenant = r.tenant AND d.policy = r.policy AND d.trace_id = r.trace_id AND d.decision_id = r.decision_id;

-- One row per trace that has events in [since, until), of those events. A repeated event counts once.
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
        LIMIT 1 BY event_id
    )
) AS e
GROUP BY tenant, trace_id;

-- One row per session (conversation) with traces in [since, until).
CREATE OR REPLACE VIEW v_sessions AS
SELECT
    tenant,
    t.session_id AS session_id,
    count() AS traces,
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

-- The events of one trace as a tree, parents before children: ORDER BY place. Feedback hangs below the span it judges.
-- A parent that the trace does not have makes a root; circles are cut. At most 4096 events, as the trace stage joins.
CREATE OR REPLACE VIEW v_trace_tree AS
WITH
    (
        SELECT mapFromArrays(groupArray(span_id), groupArray((parent_span_id, name, began)))
        FROM
        (
            SELECT
                span_id, parent_span_id,
                multiIf(operation != '', toString(operation), agent != '', toString(agent), toString(kind)) AS name,
                ts - toIntervalMicrosecond(ifNull(duration_us, 0)) AS began
            FROM trace_events FINAL
            WHERE tenant = {tenant:String} AND trace_id = {trace:String} AND kind NOT IN ('DECISION', 'FEEDBACK', 'END', 'TICK')
            ORDER BY ts, kafka_partition, kafka_offset
            LIMIT 1 BY event_id
            LIMIT 4096
        )
    ) AS tree
SELECT
    tenant,
    trace_id,
    row_number() OVER (ORDER BY sort_key, ts, event_id) AS place,
    length(above) AS depth,
    arrayMap(a -> tree[a].2, arrayReverse(above)) AS path,
    span_id,
    parent AS parent_span_id,
    agent,
    kind,
    name,
    began AS started_at,
    dateDiff('microsecond', min(began) OVER (), began) / 1000 AS offset_ms,
    duration_us / 1000 AS duration_ms,
    status,
    error,
    cost_micro_usd,
    decision_id,
    arm,
    propensity,
    metric,
    value
FROM
(
    SELECT
        *,
        arrayFilter(
            a -> mapContains(tree, a),
            arrayFold(
                (walked, step) -> if(
                    tree[walked[-1]].1 = '' OR tree[walked[-1]].1 = span_id OR has(walked, tree[walked[-1]].1),
                    walked,
                    arrayPushBack(walked, tree[walked[-1]].1)
                ),
                range(64),
                [if(is_span AND parent = span_id, '', parent)]
            )
        ) AS above,
        arrayPushBack(arrayMap(a -> (tree[a].3, a), arrayReverse(above)), (began, if(is_span, span_id, ''))) AS sort_key
    FROM
    (
        SELECT
            tenant, trace_id, event_id, span_id, agent, kind, ts, duration_us, status, error, cost_micro_usd, decision_id, arm,
            propensity, metric, value,
            kind NOT IN ('DECISION', 'FEEDBACK') AS is_span,
            if(kind = 'FEEDBACK' AND target_span_id != '', target_span_id, parent_span_id) AS parent,
            multiIf(kind = 'DECISION', toString(policy), kind = 'FEEDBACK', toString(metric),
                    operation != '', toString(operation), agent != '', toString(agent), toString(kind)) AS name,
            ts - toIntervalMicrosecond(ifNull(duration_us, 0)) AS began
        FROM trace_events FINAL
        WHERE tenant = {tenant:String} AND trace_id = {trace:String} AND kind NOT IN ('END', 'TICK')
        ORDER BY ts, kafka_partition, kafka_offset
        LIMIT 1 BY event_id
        LIMIT 4096
    )
);

-- What was spent: per day, tenant, agent and model or tool. From the windows, which hold the costs that stream workers
-- computed from the price table. unpriced: calls whose cost nobody knows; they are in no sum.
CREATE OR REPLACE VIEW v_costs_daily AS
SELECT
    tenant,
    toDate(window_start) AS day,
    kind,
    operation,
    agent,
    sum(r.events) AS calls,
    sum(r.unpriced) AS unpriced,
    sum(r.errors) AS errors,
    sum(r.input_tokens) AS input_tokens,
    sum(r.cached_input_tokens) AS cached_input_tokens,
    sum(r.output_tokens) AS output_tokens,
    sum(r.reasoning_tokens) AS reasoning_tokens,
    sum(r.cost_micro_usd) AS cost_micro_usd,
    sum(r.cost_micro_usd) / 1000000 AS cost_usd
FROM (SELECT * FROM rollups FINAL) AS r
WHERE kind IN ('MODEL_CALL', 'TOOL_CALL')
GROUP BY tenant, day, kind, operation, agent;

-- How long things took: per hour, from the merged histograms of the windows; as exact as v_rollups. histogram: bucket ->
-- count, to be merged further with sumMap.
CREATE OR REPLACE VIEW v_latency_hourly AS
SELECT
    tenant, hour, agent, kind, operation,
    n AS durations,
    if(n = 0, NULL, sum_us / n / 1000) AS mean_ms,
    if(n = 0, NULL, quantiles[1]) AS p50_ms,
    if(n = 0, NULL, quantiles[2]) AS p90_ms,
    if(n = 0, NULL, quantiles[3]) AS p95_ms,
    if(n = 0, NULL, quantiles[4]) AS p99_ms,
    if(n = 0, NULL, max_us / 1000) AS max_ms,
    mapFromArrays(histogram.1, histogram.2) AS histogram
FROM
(
    SELECT
        *,
        arrayCumSum(histogram.2) AS cumulated,
        arrayMap(
            q -> pow(2, (histogram.1[arrayFirstIndex(c -> c >= ceil(q * cumulated[-1]), cumulated)] + 0.5) / 8) / 1000,
            if(empty(cumulated), [], [0.5, 0.9, 0.95, 0.99])
        ) AS quantiles
    FROM
    (
        SELECT
            tenant, toStartOfHour(window_start) AS hour, agent, kind, operation,
            sum(duration_count) AS n,
            sum(duration_sum_us) AS sum_us,
            max(duration_max_us) AS max_us,
            sumMap(histogram_index, histogram_count) AS histogram
        FROM rollups FINAL
        GROUP BY tenant, hour, agent, kind, operation
    )
);

-- The same over any span of whole windows, [since, until).
CREATE OR REPLACE VIEW v_latency AS
SELECT
    tenant, agent, kind, operation,
    n AS durations,
    if(n = 0, NULL, sum_us / n / 1000) AS mean_ms,
    if(n = 0, NULL, quantiles[1]) AS p50_ms,
    if(n = 0, NULL, quantiles[2]) AS p90_ms,
    if(n = 0, NULL, quantiles[3]) AS p95_ms,
    if(n = 0, NULL, quantiles[4]) AS p99_ms,
    if(n = 0, NULL, max_us / 1000) AS max_ms,
    n_errors AS errors,
    n_events AS events
FROM
(
    SELECT
        *,
        arrayCumSum(histogram.2) AS cumulated,
        arrayMap(
            q -> pow(2, (histogram.1[arrayFirstIndex(c -> c >= ceil(q * cumulated[-1]), cumulated)] + 0.5) / 8) / 1000,
            if(empty(cumulated), [], [0.5, 0.9, 0.95, 0.99])
        ) AS quantiles
    FROM
    (
        SELECT
            tenant, agent, kind, operation,
            sum(duration_count) AS n,
            sum(duration_sum_us) AS sum_us,
            max(duration_max_us) AS max_us,
            sum(events) AS n_events,
            sum(errors) AS n_errors,
            sumMap(histogram_index, histogram_count) AS histogram
        FROM rollups FINAL
        WHERE tenant = {tenant:String}
            AND window_start >= {since:DateTime64(6, 'UTC')} AND window_start < {until:DateTime64(6, 'UTC')}
        GROUP BY tenant, agent, kind, operation
    )
);

-- When a policy was in which stage: a row for each run of versions of one epoch, stage and canary share. until: when the
-- next one began, NULL while it holds.
CREATE OR REPLACE VIEW v_policy_stages AS
SELECT
    tenant, policy, epoch, stage, canary_share,
    first_at AS since,
    if(follows, next_at, NULL) AS until,
    versions, first_version, last_version
FROM
(
    SELECT
        *,
        leadInFrame(first_at) OVER w AS next_at,
        leadInFrame(true) OVER w AS follows
    FROM
    (
        SELECT
            tenant, policy, epoch, stage, canary_share, run,
            min(created_at) AS first_at,
            count() AS versions,
            min(version) AS first_version,
            max(version) AS last_version
        FROM
        (
            SELECT
                *,
                sum(changed) OVER (PARTITION BY tenant, policy ORDER BY epoch, version ROWS UNBOUNDED PRECEDING) AS run
            FROM
            (
                SELECT
                    tenant, policy, epoch, version, toString(stage) AS stage, canary_share, created_at,
                    (epoch, stage, canary_share) != lagInFrame((epoch, stage, canary_share)) OVER (
                        PARTITION BY tenant, policy ORDER BY epoch, version ROWS BETWEEN 1 PRECEDING AND CURRENT ROW
                    ) AS changed
                FROM (SELECT tenant, policy, epoch, version, stage, canary_share, created_at FROM policies FINAL)
            )
        )
        GROUP BY tenant, policy, epoch, stage, canary_share, run
    )
    WINDOW w AS (PARTITION BY tenant, policy ORDER BY run ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING)
);

-- How much a policy tries out, per day, among decisions whose reward has closed. drawn: with a propensity below 1.
-- effective_arms: exp of the entropy of the arms' shares, 1 when one arm takes all.
CREATE OR REPLACE VIEW v_explored_daily AS
SELECT
    tenant, policy, day,
    sum(n) AS decisions,
    sum(n_drawn) AS drawn,
    sum(n_explored) AS explored,
    sum(n_explored) / nullIf(sum(n_drawn), 0) AS explored_share,
    sum(p_sum) / nullIf(sum(n_drawn), 0) AS mean_propensity,
    exp(log(nullIf(sum(n_chosen), 0)) - sum(if(n_chosen > 0, n_chosen * log(n_chosen), 0)) / nullIf(sum(n_chosen), 0)) AS effective_arms,
    sum(n_holdout) AS holdout,
    sum(n_fallback) AS fallback
FROM
(
    SELECT
        tenant, policy, toDate(toStartOfHour(decided_at)) AS day, arm,
        count() AS n,
        countIf(mode IN ('LIVE', 'CANARY')) AS n_chosen,
        countIf(propensity < 1 AND mode IN ('LIVE', 'CANARY')) AS n_drawn,
        countIf(explored AND propensity < 1 AND mode IN ('LIVE', 'CANARY')) AS n_explored,
        sumIf(propensity, propensity < 1 AND mode IN ('LIVE', 'CANARY')) AS p_sum,
        countIf(mode = 'HOLDOUT') AS n_holdout,
        countIf(mode = 'FALLBACK') AS n_fallback
    FROM rewards FINAL
    GROUP BY tenant, policy, day, arm
)
GROUP BY tenant, policy, day;

-- What it costs not to have known the best fixed arm from the beginning: per day of [since, until), how far drawn decisions
-- stayed behind the arm that was best over the whole span. Each arm's value is self-normalised inverse-propensity weighted
-- (SNIPS), for arms with at least 30 draws. Below 0: the policy beats every fixed arm, which a context makes possible.
CREATE OR REPLACE VIEW v_regret AS
WITH
    (
        SELECT (epoch, toString(reward_spec))
        FROM v_policy_latest
        WHERE tenant = {tenant:String} AND policy = {policy:String}
    ) AS present
SELECT
    {tenant:String} AS tenant,
    {policy:String} AS policy,
    day, decisions, mean_utility, best_arm, best_arm_utility,
    best_arm_utility - mean_utility AS regret,
    sum(regret * decisions) OVER (ORDER BY day ROWS UNBOUNDED PRECEDING) AS cumulative_regret
FROM
(
    SELECT
        day,
        sum(n) AS decisions,
        sum(u) / decisions AS mean_utility,
        any(best) AS best_arm,
        if(any(best_n) = 0, NULL, any(best_value)) AS best_arm_utility
    FROM
    (
        SELECT
            day, n, u,
            argMaxIf(arm, arm_value, arm_n >= 30) OVER () AS best,
            maxIf(arm_value, arm_n >= 30) OVER () AS best_value,
            countIf(arm_n >= 30) OVER () AS best_n
        FROM
        (
            SELECT
                day, arm, n, u,
                sum(wu) OVER (PARTITION BY arm) / sum(w) OVER (PARTITION BY arm) AS arm_value,
                sum(n) OVER (PARTITION BY arm) AS arm_n
            FROM
            (
                SELECT
                    toDate(decided_at) AS day, toString(r.arm) AS arm,
                    count() AS n, sum(assumeNotNull(utility)) AS u, sum(assumeNotNull(utility) / propensity) AS wu, sum(1 / propensity) AS w
                FROM (SELECT * FROM rewards FINAL) AS r
                WHERE tenant = {tenant:String} AND policy = {policy:String}
                    AND decided_at >= {since:DateTime64(6, 'UTC')} AND decided_at < {until:DateTime64(6, 'UTC')}
                    AND policy_epoch = present.1 AND reward_spec = present.2
                    AND mode IN ('LIVE', 'CANARY', 'SHADOW') AND propensity > 0 AND propensity < 1 AND isNotNull(utility)
                GROUP BY day, arm
            )
        )
    )
    GROUP BY day
);

-- Are the logged propensities those by which arms were drawn? Per arm of the policy's present epoch: among the decisions in
-- which it was eligible, 1/propensity summed over those that took it should be their number. z: how far off, in standard
-- errors of the log itself.
CREATE OR REPLACE VIEW v_propensity_arms AS
WITH
    (
        SELECT (epoch, arms)
        FROM v_policy_latest
        WHERE tenant = {tenant:String} AND policy = {policy:String}
    ) AS present
SELECT
    {tenant:String} AS tenant,
    {policy:String} AS policy,
    arm_label AS arm,
    arraySum(x -> if(empty(x.2) OR has(x.2, arm_number - 1), x.3, 0), logged) AS eligible,
    arraySum(x -> if(x.1 = arm_label, x.3, 0), logged) AS chosen,
    arraySum(x -> if(x.1 = arm_label, x.4, 0), logged) AS weight_sum,
    weight_sum / nullIf(eligible, 0) AS weight_mean,
    sqrt(greatest(arraySum(x -> if(x.1 = arm_label, x.5, 0), logged) / nullIf(eligible, 0) - pow(weight_mean, 2), 0) / nullIf(eligible, 0)) AS weight_se,
    (weight_mean - 1) / nullIf(weight_se, 0) AS z
FROM
(
    SELECT groupArray((arm, eligible, n, w, w_squares)) AS logged, present.2 AS labels
    FROM
    (
        SELECT
            toString(r.arm) AS arm, r.eligible AS eligible,
            count() AS n, sum(1 / r.propensity) AS w, sum(1 / r.propensity / r.propensity) AS w_squares
        FROM (SELECT * FROM rewards FINAL) AS r
        WHERE r.tenant = {tenant:String} AND r.policy = {policy:String} AND r.policy_epoch = present.1
            AND r.decided_at >= {since:DateTime64(6, 'UTC')} AND r.decided_at < {until:DateTime64(6, 'UTC')}
            AND r.mode IN ('LIVE', 'CANARY', 'SHADOW') AND r.propensity > 0 AND r.propensity < 1
        GROUP BY arm, eligible
    )
)
ARRAY JOIN labels AS arm_label, arrayEnumerate(labels) AS arm_number;

-- The same of the whole policy, in one row: the mean of 1/propensity is the mean number of eligible arms. suspicious_arms:
-- those of v_propensity_arms that are more than 4 standard errors off.
CREATE OR REPLACE VIEW v_propensity_checks AS
SELECT
    {tenant:String} AS tenant,
    {policy:String} AS policy,
    sum(chosen) AS decisions,
    sum(weight_sum) / decisions AS mean_inverse_propensity,
    sum(a.eligible) / decisions AS mean_eligible_arms,
    mean_inverse_propensity / mean_eligible_arms AS ratio,
    countIf(abs(z) > 4) AS suspicious_arms,
    countIf(chosen = 0 AND a.eligible > 0) AS arms_never_chosen
FROM v_propensity_arms(tenant = {tenant:String}, policy = {policy:String},
    since = {since:DateTime64(6, 'UTC')}, until = {until:DateTime64(6, 'UTC')}) AS a
HAVING decisions > 0;

-- Sample-ratio mismatch: is the control group as large as it was meant to be, and is it judged as often? Two chi-square
-- tests with one degree of freedom, the first over traces (a trace is in the control group as a whole), the second over
-- decisions. control: the share of the traces that the control group should have. A p below 0.001 says: find out why before
-- you compare the groups.
CREATE OR REPLACE VIEW v_sample_ratio AS
SELECT
    {tenant:String} AS tenant,
    policy,
    n_live AS traces,
    n_control AS control_traces,
    n_control / (n_live + n_control) AS control_share,
    {control:Float64} AS expected_share,
    pow(n_control - (n_live + n_control) * {control:Float64}, 2) / ((n_live + n_control) * {control:Float64} * (1 - {control:Float64})) AS chi2,
    erfc(sqrt(chi2 / 2)) AS p_value,
    judged_live / nullIf(d_live, 0) AS judged_share,
    judged_control / nullIf(d_control, 0) AS control_judged_share,
    (d_live + d_control) * pow(judged_live * (d_control - judged_control) - judged_control * (d_live - judged_live), 2)
        / nullIf(d_live * d_control * (judged_live + judged_control) * (d_live + d_control - judged_live - judged_control), 0) AS judged_chi2,
    erfc(sqrt(judged_chi2 / 2)) AS judged_p_value
FROM
(
    SELECT
        policy,
        toFloat64(uniqExactIf(trace_hash, live)) AS n_live,
        toFloat64(uniqExactIf(trace_hash, NOT live)) AS n_control,
        toFloat64(countIf(live)) AS d_live,
        toFloat64(countIf(NOT live)) AS d_control,
        toFloat64(countIf(live AND judged)) AS judged_live,
        toFloat64(countIf(NOT live AND judged)) AS judged_control
    FROM
    (
        SELECT policy, sipHash64(trace_id) AS trace_hash, mode != 'HOLDOUT' AS live, isNotNull(quality) AND NOT quality_defaulted AS judged
        FROM rewards FINAL
        WHERE tenant = {tenant:String} AND mode IN ('LIVE', 'CANARY', 'HOLDOUT')
            AND decided_at >= {since:DateTime64(6, 'UTC')} AND decided_at < {until:DateTime64(6, 'UTC')}
    )
    GROUP BY policy
);

-- How much of what was decided gets judged, per day of the decision. open: no reward yet. judged: by somebody, and not by
-- the default. Delays: from the decision to the last feedback used.
CREATE OR REPLACE VIEW v_feedback_coverage AS
SELECT
    tenant, policy, day,
    sum(n_decisions) AS decisions,
    sum(n_rewarded) AS rewarded,
    greatest(toInt64(decisions) - toInt64(rewarded), 0) AS open,
    sum(n_judged) AS judged,
    sum(n_defaulted) AS defaulted,
    judged / nullIf(rewarded, 0) AS judged_share,
    sum(delay_p50) AS feedback_delay_p50_s,
    sum(delay_p95) AS feedback_delay_p95_s
FROM
(
    SELECT
        tenant, policy, toDate(toStartOfHour(ts)) AS day,
        uniqExact(sipHash64(decision_id)) AS n_decisions,
        0 AS n_rewarded, 0 AS n_judged, 0 AS n_defaulted,
        CAST(NULL, 'Nullable(Float64)') AS delay_p50, CAST(NULL, 'Nullable(Float64)') AS delay_p95
    FROM trace_events FINAL
    WHERE kind = 'DECISION'
    GROUP BY tenant, policy, day
    UNION ALL
    SELECT
        tenant, policy, toDate(toStartOfHour(decided_at)) AS day,
        0 AS n_decisions,
        count() AS n_rewarded,
        countIf(isNotNull(quality) AND NOT quality_defaulted) AS n_judged,
        countIf(quality_defaulted) AS n_defaulted,
        quantileExactLowOrNullIf(0.5)(feedback_delay_us, feedback_count > 0) / 1000000 AS delay_p50,
        quantileExactLowOrNullIf(0.95)(feedback_delay_us, feedback_count > 0) / 1000000 AS delay_p95
    FROM rewards FINAL
    GROUP BY tenant, policy, day
)
GROUP BY tenant, policy, day;

-- Alerts with the traces that are their evidence: a row for each.
CREATE OR REPLACE VIEW v_alert_traces AS
SELECT
    tenant, alert_id, ts, detector, severity, policy, agent, value, threshold, message,
    evidence_trace AS trace_id
FROM (SELECT * FROM alerts FINAL) AS a
ARRAY JOIN arrayFilter(x -> x != '', arrayDistinct(arrayPushFront(JSONExtract(evidence, 'trace_ids', 'Array(String)'), a.trace_id))) AS evidence_trace;

-- How far each policy's newest snapshot is behind the stored rewards: those above the provenance it states. lag_s: from the
-- oldest that waits to the newest, in event time; 0 when none waits.
CREATE OR REPLACE VIEW v_learner_lag AS
SELECT
    tenant, policy, epoch, version, stage, published_at, applied,
    n_waiting AS waiting,
    if(n_waiting = 0, NULL, oldest) AS oldest_waiting_at,
    newest AS newest_reward_at,
    if(n_waiting = 0, 0, dateDiff('microsecond', oldest, newest) / 1000000) AS lag_s
FROM
(
    SELECT
        tenant, policy,
        any(p_epoch) AS epoch, any(p_version) AS version, any(p_stage) AS stage, any(created_at) AS published_at, any(applied_n) AS applied,
        uniqExactIf((source_partition, source_offset, seq), above) AS n_waiting,
        minIf(ts, above) AS oldest,
        max(ts) AS newest
    FROM
    (
        SELECT
            r.tenant AS tenant, r.policy AS policy, r.ts AS ts,
            r.source_partition AS source_partition, r.source_offset AS source_offset, r.seq AS seq,
            p.epoch AS p_epoch, p.version AS p_version, p.stage AS p_stage, p.created_at AS created_at, p.applied_n AS applied_n,
            NOT mapContains(p.heads, r.source_partition) OR (r.source_offset, r.seq) > p.heads[r.source_partition] AS above
        FROM (SELECT tenant, policy, ts, source_partition, source_offset, seq FROM rewards) AS r
        INNER JOIN
        (
            SELECT
                tenant, policy, epoch, version, toString(stage) AS stage, created_at, applied_n,
                JSONExtract(applied_sources, 'Array(Tuple(partition Int32, offset Int64, seq Int32))') AS sources,
                mapFromArrays(arrayMap(s -> s.1, sources), arrayMap(s -> (s.2, s.3), sources)) AS heads
            FROM v_policy_latest
        ) AS p ON r.tenant = p.tenant AND r.policy = p.policy
    )
    GROUP BY tenant, policy
);

-- Records that could not be used, counted: per day, stage, reason and the topic that they failed on.
CREATE OR REPLACE VIEW v_dead_letter_reasons AS
SELECT
    tenant, toDate(ts) AS day, stage, reason, error_topic,
    count() AS letters,
    sum(length(value)) AS bytes,
    min(ts) AS first_at,
    max(ts) AS last_at,
    argMax(message, ts) AS last_message
FROM dead_letters FINAL
GROUP BY tenant, day, stage, reason, error_topic;
