-- The ledger, and in every table the Kafka timestamp of its records: what the ledger counts by minute of.
--   * kafka_timestamp: 1970 for rows from before this migration, and for records without a timestamp or with one outside
--     the years 2000 to 2100.

ALTER TABLE trace_events ADD COLUMN IF NOT EXISTS kafka_timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) AFTER kafka_offset;
ALTER TABLE rewards ADD COLUMN IF NOT EXISTS kafka_timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) AFTER kafka_offset;
ALTER TABLE rollups ADD COLUMN IF NOT EXISTS kafka_timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) AFTER kafka_offset;
ALTER TABLE policies ADD COLUMN IF NOT EXISTS kafka_timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) AFTER kafka_offset;
ALTER TABLE alerts ADD COLUMN IF NOT EXISTS kafka_timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) AFTER kafka_offset;
ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS kafka_timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) AFTER kafka_offset;

-- What each stage did with the records of each minute. An entry is upserted, as a window is: of the rows of one key the
-- one with the highest version holds. Sums and hashes are 64 bits that wrap, so they are stored as they come.
CREATE TABLE IF NOT EXISTS ledger
(
    stage            LowCardinality(String),
    outcome          LowCardinality(String),
    reason           LowCardinality(String),
    tenant           LowCardinality(String),
    policy           LowCardinality(String),
    minute           DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    first_offset     Int64 CODEC(Delta, ZSTD(1)),
    version          Int64 CODEC(Delta, ZSTD(1)),
    n                Int64 CODEC(T64, ZSTD(1)),
    id_sum           Int64,
    id_xor           Int64,
    amount           Int64 CODEC(T64, ZSTD(1)),
    source_partition Int32 CODEC(T64, ZSTD(1)),
    source_offset    Int64 CODEC(Delta, ZSTD(1)),
    seq              Int32 CODEC(T64, ZSTD(1)),
    revision         UInt64 MATERIALIZED toUInt64(greatest(version, 0)),
    kafka_topic      LowCardinality(String),
    kafka_partition  Int32 CODEC(T64, ZSTD(1)),
    kafka_offset     Int64 CODEC(Delta, ZSTD(1)),
    kafka_timestamp  DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    ingested_at      DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(minute)
PRIMARY KEY (tenant, stage, minute)
ORDER BY (tenant, stage, minute, outcome, reason, policy, source_partition, first_offset)
TTL ingested_at + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- A minute of one source partition, all entries of it added up. id_sum and id_xor are unsigned, so they compare with
-- sum() and groupBitXor() of reinterpretAsUInt64(substring(SHA256(id), 1, 8)). first_offset, version: the span of input
-- offsets that was counted, the end excluded.
CREATE OR REPLACE VIEW v_ledger AS
SELECT
    stage, outcome, reason, tenant, policy, minute, source_partition,
    n_records AS n,
    reinterpretAsUInt64(sum_ids) AS id_sum,
    reinterpretAsUInt64(xor_ids) AS id_xor,
    sum_amount AS amount,
    first AS first_offset,
    last AS version
FROM
(
    SELECT
        stage, outcome, reason, tenant, policy, minute, source_partition,
        sum(n) AS n_records,
        sum(id_sum) AS sum_ids,
        groupBitXor(id_xor) AS xor_ids,
        sum(amount) AS sum_amount,
        min(first_offset) AS first,
        max(version) AS last
    FROM ledger FINAL
    GROUP BY stage, outcome, reason, tenant, policy, minute, source_partition
);

-- A view keeps the columns that it was created with, so those over all columns of a table are created again.
CREATE OR REPLACE VIEW v_events AS
SELECT
    * EXCEPT (ingested_at),
    duration_us / 1000 AS duration_ms,
    cost_micro_usd / 1000000 AS cost_usd,
    ts - toIntervalMicrosecond(ifNull(duration_us, 0)) AS started_at
FROM trace_events FINAL;

CREATE OR REPLACE VIEW v_rewards AS
SELECT
    * EXCEPT (ingested_at),
    latency_us / 1000 AS latency_ms,
    cost_micro_usd / 1000000 AS cost_usd
FROM rewards FINAL;

CREATE OR REPLACE VIEW v_policies AS
SELECT * EXCEPT (ingested_at), length(arms) AS arm_count
FROM policies FINAL;

CREATE OR REPLACE VIEW v_policy_latest AS
SELECT *
FROM v_policies
ORDER BY tenant, policy, epoch DESC, version DESC
LIMIT 1 BY tenant, policy;

CREATE OR REPLACE VIEW v_alerts AS
SELECT * EXCEPT (ingested_at)
FROM alerts FINAL;

CREATE OR REPLACE VIEW v_dead_letters AS
SELECT
    * EXCEPT (ingested_at, value, key),
    base64Encode(key) AS key_base64,
    base64Encode(value) AS value_base64,
    toValidUTF8(value) AS value_text,
    length(value) AS value_bytes
FROM dead_letters FINAL;
