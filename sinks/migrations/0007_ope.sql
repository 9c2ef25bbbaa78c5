-- Off-policy evaluation: what another policy would have earned on the decisions that were logged. docs/sql-ope.md explains
-- the parameters; learners/ope holds the same in Python, and a test compares the two.

-- The decisions that can answer for other arms: drawn (propensity below 1), rewarded, of the policy's present epoch.
--   arm_index, eligible_arms: in the order of the policy's arms, from 1.
CREATE OR REPLACE VIEW v_ope_decisions AS
SELECT
    r.tenant AS tenant,
    r.policy AS policy,
    r.decision_id AS decision_id,
    r.decided_at AS decided_at,
    r.mode AS mode,
    r.policy_version AS policy_version,
    r.arm AS arm,
    indexOf(p.arms, r.arm) AS arm_index,
    r.propensity AS propensity,
    assumeNotNull(r.utility) AS utility,
    r.features AS features,
    arrayMap(i -> toFloat64(empty(r.eligible) OR has(r.eligible, i - 1)), arrayEnumerate(p.arms)) AS eligible_arms,
    indexOf(p.arms, p.baseline) AS baseline_index,
    p.arms AS arms
FROM (SELECT * FROM rewards FINAL) AS r
INNER JOIN v_policy_latest AS p ON r.tenant = p.tenant AND r.policy = p.policy
WHERE r.mode IN ('LIVE', 'CANARY', 'SHADOW')
    AND r.propensity > 0 AND r.propensity < 1
    AND isNotNull(r.utility)
    AND r.policy_epoch = p.epoch
    AND r.reward_spec = p.reward_spec
    AND has(p.arms, r.arm);

-- Per decision: probability of the taken arm under the target, its weight, and the reward model (each arm's mean over all
-- other decisions). target: uniform, baseline, greedy (needs weights: utility per arm and feature), or an arm's label.
CREATE OR REPLACE VIEW v_ope_terms AS
SELECT
    decision_id,
    utility AS r,
    pi[a] / propensity AS w,
    q[a] AS q_taken,
    arraySum(arrayMap((x, y) -> x * y, pi, q)) AS v,
    arrayMax(pi) AS pi_max,
    propensity AS p,
    arrayMin(q) AS q_min,
    arrayMax(q) AS q_max
FROM
(
    SELECT
        decision_id, utility, propensity,
        arm_index AS a,
        multiIf(
            {target:String} = 'uniform', arrayMap(e -> e / arraySum(eligible_arms), eligible_arms),
            arrayMap(i -> toFloat64(i = chosen), arrayEnumerate(arms))
        ) AS pi,
        multiIf(
            {target:String} = 'greedy', indexOf(scores, arrayMax(scores)),
            wanted > 0 AND eligible_arms[wanted] = 1, wanted,
            indexOf(eligible_arms, 1.)
        ) AS chosen,
        if({target:String} = 'baseline', baseline_index, indexOf(arms, {target:String})) AS wanted,
        arrayMap(
            (row, e) -> if(e = 1, arraySum(arrayMap((x, y) -> toFloat64(x) * y, features, row)), -inf),
            if(length({weights:Array(Array(Float64))}) = length(arms), {weights:Array(Array(Float64))}, arrayMap(x -> emptyArrayFloat64(), arms)),
            eligible_arms
        ) AS scores,
        sumForEach(arrayMap(i -> if(i = arm_index, utility, 0.), arrayEnumerate(arms))) OVER () AS sums,
        sumForEach(arrayMap(i -> toFloat64(i = arm_index), arrayEnumerate(arms))) OVER () AS counts,
        (sum(utility) OVER () - utility) / greatest(count() OVER () - 1, 1) AS others,
        arrayMap(
            (s, c, i) -> if(c > (i = arm_index), (s - if(i = arm_index, utility, 0.)) / (c - (i = arm_index)), others),
            sums, counts, arrayEnumerate(arms)
        ) AS q
    FROM v_ope_decisions
    WHERE tenant = {tenant:String} AND policy = {policy:String}
        AND decided_at >= {since:DateTime64(6, 'UTC')} AND decided_at < {until:DateTime64(6, 'UTC')}
);

-- One row per estimator: value, and both intervals at the confidence of z, the quantile of the standard normal distribution
-- (1.959963984540054 for 95 %). switch_at: threshold of SWITCH. Formulas and sources: learners/ope/intervals.py.
CREATE OR REPLACE VIEW v_ope AS
SELECT
    estimator,
    estimate AS value,
    greatest(least(arrayMin(arraySlice(ends, 1, 2)) - bias, r_max), r_min) AS likelihood_low,
    least(greatest(arrayMax(arraySlice(ends, 3, 2)) + bias, r_min), r_max) AS likelihood_high,
    greatest(least(bernstein_ends[1] - bias, r_max), r_min) AS bernstein_low,
    least(greatest(bernstein_ends[2] + bias, r_min), r_max) AS bernstein_high,
    n,
    if(w_squares > 0, w_sum * w_sum / w_squares, 0.) AS ess,
    w_mean AS weight_mean,
    w_max AS weight_max,
    weight_limit,
    r_mean AS logged
FROM
(
    SELECT
        *,
        log(4 / erfc({z:Float64} / sqrt(2))) AS log_term,
        -- likelihood: each end for the two unseen decisions that could move it the most, of weight top and 0
        [top, 0., top, 0.] AS fake_weights,
        [term_low, term_zero, term_high, term_zero] AS fake_terms,
        [-1., -1., 1., 1.] AS signs,
        arrayMap(x -> x - w_mean, fake_weights) AS off_w,
        arrayMap(x -> x - g, fake_terms) AS off_g,
        arrayMap(x -> (n - 1) * w_var + n / (n + 1) * x * x, off_w) AS s_ww,
        arrayMap(x -> (n - 1) * g_var + n / (n + 1) * x * x, off_g) AS s_gg,
        arrayMap((x, y) -> (n - 1) * g_cov + n / (n + 1) * x * y, off_w, off_g) AS s_gw,
        arrayMap((xy, xx) -> if(xx > 0, xy / xx, 0.), s_gw, s_ww) AS slopes,
        arrayMap(
            (slope, dw, dg, gg, gw, sign) -> g + dg / (n + 1) + slope * (1 - w_mean - dw / (n + 1))
                + sign * {z:Float64} * sqrt(greatest(gg - slope * gw, 0.) / greatest(n - 1, 1) / (n + 1)),
            slopes, off_w, off_g, s_gg, s_gw, signs
        ) AS ends,
        -- Bernstein: about the mean, or for the ratio of means the roots of a square
        7 * span * log_term / (3 * (n - 1)) AS c,
        2 * log_term / n AS k,
        w_mean * w_mean - k * w_var AS ratio_a,
        arrayMap(
            sign -> multiIf(
                n < 2, sign * inf,
                estimator != 'snips', g + sign * (sqrt(k * g_var) + c),
                ratio_a <= 0, sign * inf,
                ((g + sign * c) * w_mean - k * g_cov + sign * sqrt(greatest(
                    pow((g + sign * c) * w_mean - k * g_cov, 2) - ratio_a * (pow(g + sign * c, 2) - k * g_var), 0.))) / ratio_a
            ),
            [-1., 1.]
        ) AS bernstein_ends
    FROM
    (
        SELECT
            * EXCEPT (estimators),
            estimators.1 AS estimator, estimators.2 AS estimate,
            estimators.3 AS g, estimators.4 AS g_var, estimators.5 AS g_cov,
            estimators.6 AS top, estimators.7 AS term_low, estimators.8 AS term_zero, estimators.9 AS term_high,
            estimators.10 AS span, estimators.11 AS bias
        FROM
        (
            SELECT
                toFloat64(count()) AS n,
                avg(r) AS r_mean, min(r) AS r_min, max(r) AS r_max,
                sum(w) AS w_sum, sum(w * w) AS w_squares, avg(w) AS w_mean, max(w) AS w_max,
                if(n > 1, varSampStable(w), 0.) AS w_var,
                max(pi_max) / min(p) AS weight_limit,
                avg(v) AS v_mean, min(q_min) AS q_low, max(q_max) AS q_high,
                least(r_min - q_high, 0.) AS worst, greatest(r_max - q_low, 0.) AS best,
                avg(w * r) AS ips, if(n > 1, varSampStable(w * r), 0.) AS ips_var, if(n > 1, covarSampStable(w * r, w), 0.) AS ips_cov,
                avg(dr_term) AS dr, if(n > 1, varSampStable(dr_term), 0.) AS dr_var, if(n > 1, covarSampStable(dr_term, w), 0.) AS dr_cov,
                avg(switch_term) AS switch, if(n > 1, varSampStable(switch_term), 0.) AS switch_var,
                if(n > 1, covarSampStable(switch_term, w), 0.) AS switch_cov,
                least(weight_limit, {switch_at:Float64}) AS switch_top,
                (r_max - r_min) * sum(if(w <= {switch_at:Float64}, 0., w)) / n AS switch_bias,
                [
                    ('ips', ips, ips, ips_var, ips_cov, weight_limit, weight_limit * r_min, 0., weight_limit * r_max,
                        weight_limit * (greatest(r_max, 0.) - least(r_min, 0.)), 0.),
                    ('snips', ips / w_mean, ips, ips_var, ips_cov, weight_limit, weight_limit * r_min, 0., weight_limit * r_max,
                        weight_limit * (r_max - r_min), 0.),
                    ('dr', dr, dr, dr_var, dr_cov, weight_limit, v_mean + weight_limit * worst, v_mean, v_mean + weight_limit * best,
                        q_high - q_low + weight_limit * (best - worst), 0.),
                    ('switch', switch, switch, switch_var, switch_cov, switch_top, v_mean + switch_top * worst, v_mean,
                        v_mean + switch_top * best, q_high - q_low + switch_top * (best - worst), switch_bias)
                ] AS all_estimators
            FROM
            (
                SELECT
                    *,
                    v + w * (r - q_taken) AS dr_term,
                    v + if(w <= {switch_at:Float64}, w * (r - q_taken), 0.) AS switch_term
                FROM v_ope_terms(
                    tenant = {tenant:String}, policy = {policy:String}, target = {target:String},
                    weights = {weights:Array(Array(Float64))},
                    since = {since:DateTime64(6, 'UTC')}, until = {until:DateTime64(6, 'UTC')})
            )
            HAVING n > 0
        )
        ARRAY JOIN all_estimators AS estimators
    )
);
