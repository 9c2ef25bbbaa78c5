-- Tool calls that a decision is charged with, however they ended: 0 for rewards of before.
ALTER TABLE rewards ADD COLUMN IF NOT EXISTS tool_calls Int32 CODEC(T64, ZSTD(1)) AFTER hits;

-- The columns of before, and tool_calls at the end.
CREATE OR REPLACE VIEW v_rewards AS
SELECT
    * EXCEPT (ingested_at, hits, tool_calls),
    latency_us / 1000 AS latency_ms,
    cost_micro_usd / 1000000 AS cost_usd,
    hits,
    tool_calls
FROM rewards FINAL;
