-- Which detectors hit a span that the decision is charged with (docs/detectors.md), separated by spaces; '' for none.
ALTER TABLE rewards ADD COLUMN IF NOT EXISTS hits LowCardinality(String) AFTER peers;

-- The columns of before, and hits at the end.
CREATE OR REPLACE VIEW v_rewards AS
SELECT
    * EXCEPT (ingested_at, hits),
    latency_us / 1000 AS latency_ms,
    cost_micro_usd / 1000000 AS cost_usd,
    hits
FROM rewards FINAL;
