-- What a version charges for being off a steady ceiling, beside the prices in multipliers.
ALTER TABLE policies ADD COLUMN IF NOT EXISTS squares String CODEC(ZSTD(1))
    COMMENT 'JSON array of {tenant, component, weight, centre}; no tenant: of every request' AFTER multipliers;

-- The columns of before, and squares at the end; rows of before have none.
CREATE OR REPLACE VIEW v_policies AS
SELECT * EXCEPT (ingested_at, record, squares), length(arms) AS arm_count, notEmpty(record) AS kept,
    if(empty(policies.squares), '[]', policies.squares) AS squares
FROM policies FINAL;

CREATE OR REPLACE VIEW v_policy_latest AS
SELECT *
FROM v_policies
ORDER BY tenant, policy, epoch DESC, version DESC, acts DESC
LIMIT 1 BY tenant, policy;
