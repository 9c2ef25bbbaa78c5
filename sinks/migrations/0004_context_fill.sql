-- How full the fullest context window of a decision was: null for rewards of before.
ALTER TABLE rewards ADD COLUMN IF NOT EXISTS context_fill Nullable(Float64) AFTER seq;

CREATE OR REPLACE VIEW v_rewards AS
SELECT
    * EXCEPT (ingested_at),
    latency_us / 1000 AS latency_ms,
    cost_micro_usd / 1000000 AS cost_usd
FROM rewards FINAL;
