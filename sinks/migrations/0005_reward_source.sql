-- Who judged the quality of a reward; empty for rows from before this migration, and where nobody is named.

ALTER TABLE rewards ADD COLUMN IF NOT EXISTS source String CODEC(ZSTD(1)) AFTER seq;

CREATE OR REPLACE VIEW v_rewards AS
SELECT
    * EXCEPT (ingested_at),
    latency_us / 1000 AS latency_ms,
    cost_micro_usd / 1000000 AS cost_usd
FROM rewards FINAL;
