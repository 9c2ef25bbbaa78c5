-- Acts of operators (docs/policy-life-cycle.md), and what it takes to go back to an earlier version of a policy.

-- An act may publish one version of a policy again in another way (pinned, frozen, retired), so acts are part of the key.
ALTER TABLE policies
    ADD COLUMN IF NOT EXISTS acts Int64 CODEC(T64, ZSTD(1)) AFTER record_sha256,
    MODIFY ORDER BY (tenant, policy, epoch, version, acts);

-- record: the snapshot as it was published, in single-object encoding. Versions come several a second, so the sink keeps the
-- record of one a minute, and of each that was published after a change of stage, settings or acts.
ALTER TABLE policies
    ADD COLUMN IF NOT EXISTS pinned String CODEC(ZSTD(1)) AFTER acts,
    ADD COLUMN IF NOT EXISTS record String CODEC(ZSTD(1)) TTL ingested_at + INTERVAL 30 DAY AFTER pinned;

CREATE OR REPLACE VIEW v_policies AS
SELECT * EXCEPT (ingested_at, record), length(arms) AS arm_count, notEmpty(record) AS kept
FROM policies FINAL;

CREATE OR REPLACE VIEW v_policy_latest AS
SELECT *
FROM v_policies
ORDER BY tenant, policy, epoch DESC, version DESC, acts DESC
LIMIT 1 BY tenant, policy;

-- The records that are kept, for whoever needs the weights.
CREATE OR REPLACE VIEW v_policy_records AS
SELECT tenant, policy, epoch, version, acts, stage, pinned, created_at, base64Encode(record) AS record_base64
FROM policies FINAL
WHERE notEmpty(record);

-- A row when an act is asked for, and one when the learner has read it.
CREATE TABLE IF NOT EXISTS policy_acts
(
    act_id          String CODEC(ZSTD(1)),
    ts              DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    tenant          LowCardinality(String),
    policy          LowCardinality(String),
    act             LowCardinality(String),
    who             String CODEC(ZSTD(1)),
    why             String CODEC(ZSTD(1)),
    expected        LowCardinality(String),
    in_epoch        Int64 CODEC(T64, ZSTD(1)),
    epoch           Int64 CODEC(T64, ZSTD(1)) COMMENT 'of the version to go back to, -1 for none',
    version         Int64 CODEC(T64, ZSTD(1)) COMMENT 'to go back to, -1 for none',
    outcome         LowCardinality(String) COMMENT 'ASKED, APPLIED or REFUSED',
    reason          String CODEC(ZSTD(1)) COMMENT 'why it was refused',
    at_epoch        Int64 CODEC(T64, ZSTD(1)) COMMENT 'epoch in which the learner read it, -1 before',
    at_version      Int64 CODEC(T64, ZSTD(1)) COMMENT 'rewards that the learner had applied by then, -1 before',
    standing        LowCardinality(String) COMMENT 'how the policy stands since',
    kafka_topic     LowCardinality(String),
    kafka_partition Int32 CODEC(T64, ZSTD(1)),
    kafka_offset    Int64 CODEC(Delta, ZSTD(1)),
    kafka_timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    ingested_at     DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ts)
PRIMARY KEY (tenant, policy, ts)
ORDER BY (tenant, policy, ts, act_id, outcome)
TTL ingested_at + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- One row an act, with what became of it.
CREATE OR REPLACE VIEW v_policy_acts AS
SELECT
    a.tenant AS tenant,
    a.policy AS policy,
    a.act_id AS act_id,
    a.ts AS ts,
    any(a.act) AS act,
    any(a.who) AS who,
    any(a.why) AS why,
    max(a.expected) AS expected,
    max(a.epoch) AS epoch,
    max(a.version) AS version,
    argMax(a.outcome, (a.outcome != 'ASKED', a.kafka_offset)) AS outcome,
    argMax(a.reason, (a.outcome != 'ASKED', a.kafka_offset)) AS reason,
    max(a.at_epoch) AS at_epoch,
    max(a.at_version) AS at_version,
    argMax(a.standing, (a.outcome != 'ASKED', a.kafka_offset)) AS standing,
    min(a.kafka_timestamp) AS asked_at,
    maxOrNullIf(a.kafka_timestamp, a.outcome != 'ASKED') AS answered_at
FROM policy_acts AS a FINAL
GROUP BY a.tenant, a.policy, a.act_id, a.ts;
