-- What the decisions of a trace share: the quality that was split (null where nothing was), and the peers that the
-- learner takes out of the account ('' where it does not).

ALTER TABLE rewards ADD COLUMN IF NOT EXISTS trace_quality Nullable(Float64) AFTER seq;
ALTER TABLE rewards ADD COLUMN IF NOT EXISTS peers LowCardinality(String) AFTER trace_quality;

CREATE OR REPLACE VIEW v_rewards AS
SELECT
    * EXCEPT (ingested_at),
    latency_us / 1000 AS latency_ms,
    cost_micro_usd / 1000000 AS cost_usd
FROM rewards FINAL;
