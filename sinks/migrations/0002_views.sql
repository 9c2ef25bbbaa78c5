-- Views: the contract with everybody who asks. Their names and columns stay; tables may change below them.
-- All of them read deduplicated. Times are UTC, *_ms are milliseconds, *_usd are US dollars (for reading; sums that must
-- be exact add up cost_micro_usd), NULL means unknown.

-- Every event of every trace as it was reported. started_at: when the span began.
CREATE OR REPLACE VIEW v_events AS
SELECT
    * EXCEPT (ingested_at),
    duration_us / 1000 AS duration_ms,
    cost_micro_usd / 1000000 AS cost_usd,
    ts - toIntervalMicrosecond(ifNull(duration_us, 0)) AS started_at
FROM trace_events FINAL;

-- What every decision turned out to be worth: one row per decision whose reward has closed.
CREATE OR REPLACE VIEW v_rewards AS
SELECT
    * EXCEPT (ingested_at),
    latency_us / 1000 AS latency_ms,
    cost_micro_usd / 1000000 AS cost_usd
FROM rewards FINAL;

-- Windows merged over source partitions, percentiles from the merged histogram: bucket i holds durations in
-- [2^(i/8), 2^((i+1)/8)) microseconds; a percentile is the geometric middle of the bucket that holds the nearest rank,
-- so it is off by at most 2^(1/16) - 1 = 4.43 %. closed: the window is final in every partition seen so far.
CREATE OR REPLACE VIEW v_rollups AS
SELECT
    window_start, window_us, tenant, agent, policy, arm, operation, kind,
    is_closed AS closed,
    n_events AS events,
    n_errors AS errors,
    n_errors / n_events AS error_rate,
    n_explored AS explored,
    n_input AS input_tokens,
    n_cached AS cached_input_tokens,
    n_output AS output_tokens,
    n_reasoning AS reasoning_tokens,
    micro_usd AS cost_micro_usd,
    micro_usd / 1000000 AS cost_usd,
    n_unpriced AS unpriced,
    n_durations AS duration_count,
    if(n_durations = 0, NULL, sum_us / n_durations / 1000) AS mean_ms,
    if(empty(quantiles), NULL, quantiles[1]) AS p50_ms,
    if(empty(quantiles), NULL, quantiles[2]) AS p95_ms,
    if(empty(quantiles), NULL, quantiles[3]) AS p99_ms,
    if(n_durations = 0, NULL, max_us / 1000) AS max_ms,
    if(n_fill = 0, NULL, sum_fill / n_fill) AS mean_context_fill,
    n_rewards AS rewards,
    if(n_quality = 0, NULL, sum_utility / n_quality) AS mean_utility,
    if(n_quality = 0, NULL, sum_quality / n_quality) AS mean_quality,
    n_late AS late
FROM
(
    SELECT
        *,
        arrayCumSum(histogram.2) AS cumulated,
        arrayMap(
            q -> pow(2, (histogram.1[arrayFirstIndex(c -> c >= ceil(q * cumulated[-1]), cumulated)] + 0.5) / 8) / 1000,
            if(empty(cumulated), [], [0.5, 0.95, 0.99])
        ) AS quantiles
    FROM
    (
        SELECT
            window_start, window_us, tenant, agent, policy, arm, operation, kind,
            min(closed) AS is_closed,
            sum(events) AS n_events,
            sum(errors) AS n_errors,
            sum(explored) AS n_explored,
            sum(input_tokens) AS n_input,
            sum(cached_input_tokens) AS n_cached,
            sum(output_tokens) AS n_output,
            sum(reasoning_tokens) AS n_reasoning,
            sum(cost_micro_usd) AS micro_usd,
            sum(unpriced) AS n_unpriced,
            sum(duration_count) AS n_durations,
            sum(duration_sum_us) AS sum_us,
            max(duration_max_us) AS max_us,
            sumMap(histogram_index, histogram_count) AS histogram,
            sum(context_fill_sum) AS sum_fill,
            sum(context_fill_count) AS n_fill,
            sum(rewards) AS n_rewards,
            sum(utility_sum) AS sum_utility,
            sum(quality_sum) AS sum_quality,
            sum(quality_count) AS n_quality,
            sum(late) AS n_late
        FROM rollups FINAL
        GROUP BY window_start, window_us, tenant, agent, policy, arm, operation, kind
    )
);

-- Every policy version that was published.
CREATE OR REPLACE VIEW v_policies AS
SELECT * EXCEPT (ingested_at), length(arms) AS arm_count
FROM policies FINAL;

-- The version of each policy that agents decide with now.
CREATE OR REPLACE VIEW v_policy_latest AS
SELECT *
FROM v_policies
ORDER BY tenant, policy, epoch DESC, version DESC
LIMIT 1 BY tenant, policy;

CREATE OR REPLACE VIEW v_alerts AS
SELECT * EXCEPT (ingested_at)
FROM alerts FINAL;

-- Records that a stage could not use. value_base64: the record's bytes; value_text: as far as they are UTF-8.
CREATE OR REPLACE VIEW v_dead_letters AS
SELECT
    * EXCEPT (ingested_at, value, key),
    base64Encode(key) AS key_base64,
    base64Encode(value) AS value_base64,
    toValidUTF8(value) AS value_text,
    length(value) AS value_bytes
FROM dead_letters FINAL;

-- Every decision with its reward; the columns from rewarded on are NULL until the reward has closed. An event that a
-- producer sent twice counts once.
CREATE OR REPLACE VIEW v_decisions AS
SELECT
    d.tenant AS tenant,
    d.policy AS policy,
    d.decision_id AS decision_id,
    d.trace_id AS trace_id,
    d.span_id AS span_id,
    d.parent_span_id AS parent_span_id,
    d.agent AS agent,
    d.ts AS decided_at,
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
    if(rewarded, r.reward_spec, NULL) AS reward_spec
FROM
(
    SELECT *
    FROM trace_events FINAL
    WHERE kind = 'DECISION'
    ORDER BY kafka_partition, kafka_offset
    LIMIT 1 BY tenant, decision_id
) AS d
LEFT ANY JOIN (SELECT * FROM rewards FINAL) AS r ON d.tenant = r.tenant AND d.decision_id = r.decision_id;

-- How the policy's choices shift: per minute and policy, each arm's share of the LIVE and CANARY decisions.
CREATE OR REPLACE VIEW v_arm_share AS
SELECT
    tenant, policy, minute, arm,
    n AS decisions,
    n / sum(n) OVER (PARTITION BY tenant, policy, minute) AS share,
    p AS mean_propensity,
    n_explored AS explored
FROM
(
    SELECT
        tenant, policy, toStartOfMinute(ts) AS minute, arm,
        count() AS n,
        avg(propensity) AS p,
        countIf(explored) AS n_explored
    FROM trace_events FINAL
    WHERE kind = 'DECISION' AND mode IN ('LIVE', 'CANARY')
    GROUP BY tenant, policy, minute, arm
);

-- Is it worth it? Per policy, its own decisions (LIVE) against the baseline's (control: HOLDOUT, the permanent control
-- group, and FALLBACK). *_change: relative to the control, -0.5 is half. utility_gain comes with its standard error; the
-- comparison is a fair one where the control is a random sample, which HOLDOUT is and FALLBACK need not be:
-- control_holdout says how much of the control is.
CREATE OR REPLACE VIEW v_uplift AS
SELECT
    tenant,
    policy,
    countIf(live) AS decisions,
    countIf(NOT live) AS control_decisions,
    countIf(mode = 'HOLDOUT') AS control_holdout,
    avgOrNullIf(latency_us, live) / 1000 AS latency_ms,
    avgOrNullIf(latency_us, NOT live) / 1000 AS control_latency_ms,
    latency_ms / nullIf(control_latency_ms, 0) - 1 AS latency_change,
    avgOrNullIf(cost_micro_usd, live) / 1000000 AS cost_usd,
    avgOrNullIf(cost_micro_usd, NOT live) / 1000000 AS control_cost_usd,
    cost_usd / nullIf(control_cost_usd, 0) - 1 AS cost_change,
    avgOrNullIf(quality, live) AS mean_quality,
    avgOrNullIf(quality, NOT live) AS control_quality,
    mean_quality - control_quality AS quality_gain,
    avgOrNullIf(utility, live) AS mean_utility,
    avgOrNullIf(utility, NOT live) AS control_utility,
    mean_utility - control_utility AS utility_gain,
    sqrt(varSampIf(utility, live AND isNotNull(utility)) / countIf(live AND isNotNull(utility))
       + varSampIf(utility, NOT live AND isNotNull(utility)) / countIf(NOT live AND isNotNull(utility))) AS utility_gain_se
FROM (SELECT *, mode = 'LIVE' AS live FROM rewards FINAL WHERE mode IN ('LIVE', 'HOLDOUT', 'FALLBACK'))
GROUP BY tenant, policy;
