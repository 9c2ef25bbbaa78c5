-- Tables. What holds for all of them:
--   * one row per Kafka record, with the topic, partition and offset it came from;
--   * ReplacingMergeTree, because a record can be inserted twice: after a crash between an insert and its commit, or
--     because a stage upstream repeated an output. Read the v_* views, which read deduplicated;
--   * non_replicated_deduplication_window: an insert that is repeated with the same insert_deduplication_token, as the
--     sink does when the reply to one was lost, is dropped by the server;
--   * the tenant comes first in the key; partitions are months of event time, never tenants;
--   * text that a record leaves out is '', numbers that it leaves out are NULL;
--   * retention counts from ingestion, so that old traces can be replayed.

CREATE TABLE IF NOT EXISTS trace_events
(
    event_id            String CODEC(ZSTD(1)),
    tenant              LowCardinality(String),
    trace_id            String CODEC(ZSTD(1)),
    span_id             String CODEC(ZSTD(1)),
    parent_span_id      String CODEC(ZSTD(1)),
    session_id          String CODEC(ZSTD(1)),
    agent               LowCardinality(String),
    kind                LowCardinality(String),
    ts                  DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    duration_us         Nullable(Int64) CODEC(T64, ZSTD(1)),
    status              LowCardinality(String),
    error               LowCardinality(String),
    operation           LowCardinality(String),
    provider            LowCardinality(String),
    input_tokens        Nullable(Int64) CODEC(T64, ZSTD(1)),
    cached_input_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
    cache_write_tokens  Nullable(Int64) CODEC(T64, ZSTD(1)),
    output_tokens       Nullable(Int64) CODEC(T64, ZSTD(1)),
    reasoning_tokens    Nullable(Int64) CODEC(T64, ZSTD(1)),
    cost_micro_usd      Nullable(Int64) CODEC(T64, ZSTD(1)),
    context_tokens      Nullable(Int64) CODEC(T64, ZSTD(1)),
    context_limit       Nullable(Int64) CODEC(T64, ZSTD(1)),
    args_hash           String CODEC(ZSTD(1)),
    decision_id         String CODEC(ZSTD(1)),
    policy              LowCardinality(String),
    policy_epoch        Nullable(Int64) CODEC(T64, ZSTD(1)),
    policy_version      Nullable(Int64) CODEC(T64, ZSTD(1)),
    arm                 LowCardinality(String),
    propensity          Nullable(Float64),
    explored            Nullable(Bool),
    mode                LowCardinality(String),
    reason              LowCardinality(String),
    features            Array(Float32) CODEC(ZSTD(1)),
    eligible            Array(Int32) CODEC(ZSTD(1)),
    context             String CODEC(ZSTD(1)),
    metric              LowCardinality(String),
    value               Nullable(Float64),
    label               String CODEC(ZSTD(1)),
    comment             String CODEC(ZSTD(1)),
    source              String CODEC(ZSTD(1)),
    target_decision_id  String CODEC(ZSTD(1)),
    target_span_id      String CODEC(ZSTD(1)),
    attributes          String CODEC(ZSTD(1)),
    truncated           Bool,
    kafka_topic         LowCardinality(String),
    kafka_partition     Int32 CODEC(T64, ZSTD(1)),
    kafka_offset        Int64 CODEC(Delta, ZSTD(1)),
    ingested_at         DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1)),
    INDEX by_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_decision decision_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_target target_decision_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ts)
PRIMARY KEY (tenant, agent, kind, toStartOfHour(ts))
ORDER BY (tenant, agent, kind, toStartOfHour(ts), xxHash32(trace_id), kafka_partition, kafka_offset)
TTL ingested_at + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- Keyed by the decision and not by the Kafka offset: a stream worker that restarts repeats its last outputs, byte for
-- byte, under new offsets.
CREATE TABLE IF NOT EXISTS rewards
(
    decision_id       String CODEC(ZSTD(1)),
    tenant            LowCardinality(String),
    policy            LowCardinality(String),
    trace_id          String CODEC(ZSTD(1)),
    agent             LowCardinality(String),
    ts                DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    decided_at        DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    policy_epoch      Nullable(Int64) CODEC(T64, ZSTD(1)),
    policy_version    Nullable(Int64) CODEC(T64, ZSTD(1)),
    arm               LowCardinality(String),
    propensity        Float64,
    explored          Bool,
    mode              LowCardinality(String),
    features          Array(Float32) CODEC(ZSTD(1)),
    eligible          Array(Int32) CODEC(ZSTD(1)),
    quality           Nullable(Float64),
    quality_defaulted Bool,
    cost_micro_usd    Int64 CODEC(T64, ZSTD(1)),
    latency_us        Int64 CODEC(T64, ZSTD(1)),
    failures          Int32 CODEC(T64, ZSTD(1)),
    utility           Nullable(Float64),
    reward_spec       LowCardinality(String),
    input_tokens      Int64 CODEC(T64, ZSTD(1)),
    output_tokens     Int64 CODEC(T64, ZSTD(1)),
    spans             Int32 CODEC(T64, ZSTD(1)),
    feedback_count    Int32 CODEC(T64, ZSTD(1)),
    feedback_delay_us Int64 CODEC(T64, ZSTD(1)),
    closed_by         LowCardinality(String),
    source_partition  Int32 CODEC(T64, ZSTD(1)),
    source_offset     Int64 CODEC(Delta, ZSTD(1)),
    seq               Int32 CODEC(T64, ZSTD(1)),
    kafka_topic       LowCardinality(String),
    kafka_partition   Int32 CODEC(T64, ZSTD(1)),
    kafka_offset      Int64 CODEC(Delta, ZSTD(1)),
    ingested_at       DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1)),
    INDEX by_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_decision decision_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(decided_at)
PRIMARY KEY (tenant, policy, toStartOfHour(decided_at))
ORDER BY (tenant, policy, toStartOfHour(decided_at), decision_id, reward_spec)
TTL ingested_at + INTERVAL 180 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- A window is upserted: of the rows of one window and source partition the one with the highest revision holds. Only
-- (source_offset, seq) is sure to grow with every output of a source partition, so that pair is the revision.
CREATE TABLE IF NOT EXISTS rollups
(
    window_start        DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    window_us           Int64 CODEC(T64, ZSTD(1)),
    tenant              LowCardinality(String),
    agent               LowCardinality(String),
    policy              LowCardinality(String),
    arm                 LowCardinality(String),
    operation           LowCardinality(String),
    kind                LowCardinality(String),
    version             Int64 CODEC(Delta, ZSTD(1)),
    closed              Bool,
    events              Int64 CODEC(T64, ZSTD(1)),
    errors              Int64 CODEC(T64, ZSTD(1)),
    explored            Int64 CODEC(T64, ZSTD(1)),
    input_tokens        Int64 CODEC(T64, ZSTD(1)),
    cached_input_tokens Int64 CODEC(T64, ZSTD(1)),
    output_tokens       Int64 CODEC(T64, ZSTD(1)),
    reasoning_tokens    Int64 CODEC(T64, ZSTD(1)),
    cost_micro_usd      Int64 CODEC(T64, ZSTD(1)),
    unpriced            Int64 CODEC(T64, ZSTD(1)),
    duration_count      Int64 CODEC(T64, ZSTD(1)),
    duration_sum_us     Int64 CODEC(T64, ZSTD(1)),
    duration_max_us     Int64 CODEC(T64, ZSTD(1)),
    histogram_index     Array(Int32) CODEC(ZSTD(1)),
    histogram_count     Array(Int64) CODEC(ZSTD(1)),
    context_fill_sum    Float64,
    context_fill_count  Int64 CODEC(T64, ZSTD(1)),
    rewards             Int64 CODEC(T64, ZSTD(1)),
    utility_sum         Float64,
    quality_sum         Float64,
    quality_count       Int64 CODEC(T64, ZSTD(1)),
    late                Int64 CODEC(T64, ZSTD(1)),
    source_partition    Int32 CODEC(T64, ZSTD(1)),
    source_offset       Int64 CODEC(Delta, ZSTD(1)),
    seq                 Int32 CODEC(T64, ZSTD(1)),
    revision            UInt64 MATERIALIZED bitOr(bitShiftLeft(toUInt64(greatest(version, source_offset + 1, 0)), 20),
                                                  toUInt64(least(greatest(seq, 0), 1048575))),
    kafka_topic         LowCardinality(String),
    kafka_partition     Int32 CODEC(T64, ZSTD(1)),
    kafka_offset        Int64 CODEC(Delta, ZSTD(1)),
    ingested_at         DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(window_start)
PRIMARY KEY (tenant, policy, kind, window_us, window_start)
ORDER BY (tenant, policy, kind, window_us, window_start, agent, arm, operation, source_partition)
TTL ingested_at + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- Snapshots without their weights: what was published when, and the hash that proves which bytes. Of one version
-- published again (after a restart, or in another stage) the last on the topic holds.
CREATE TABLE IF NOT EXISTS policies
(
    tenant            LowCardinality(String),
    policy            LowCardinality(String),
    epoch             Int64 CODEC(T64, ZSTD(1)),
    version           Int64 CODEC(Delta, ZSTD(1)),
    stage             LowCardinality(String),
    canary_share      Float64,
    arms              Array(String) CODEC(ZSTD(1)),
    baseline          LowCardinality(String),
    learner           LowCardinality(String),
    exploration       LowCardinality(String),
    exploration_scale Float64,
    floor             Float64,
    objective         String CODEC(ZSTD(1)) COMMENT 'JSON array of {component, weight, scale}',
    multipliers       String CODEC(ZSTD(1)) COMMENT 'JSON array of {component, value}',
    reward_spec       LowCardinality(String),
    applied_n         Int64 CODEC(T64, ZSTD(1)),
    applied_hash      Int64,
    applied_sources   String CODEC(ZSTD(1)) COMMENT 'JSON array of {partition, offset, seq}',
    created_at        DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    not_after         Nullable(DateTime64(6, 'UTC')),
    signed            Bool,
    tensors           Array(String) CODEC(ZSTD(1)) COMMENT 'names of the weight arrays',
    record_bytes      Int64 CODEC(T64, ZSTD(1)),
    record_sha256     FixedString(64) CODEC(ZSTD(1)),
    kafka_topic       LowCardinality(String),
    kafka_partition   Int32 CODEC(T64, ZSTD(1)),
    kafka_offset      Int64 CODEC(Delta, ZSTD(1)),
    revision          UInt64 MATERIALIZED toUInt64(greatest(kafka_offset, 0)),
    ingested_at       DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(created_at)
ORDER BY (tenant, policy, epoch, version)
TTL ingested_at + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- alert_id is deterministic, so a repeated alert is the same row.
CREATE TABLE IF NOT EXISTS alerts
(
    alert_id         String CODEC(ZSTD(1)),
    tenant           LowCardinality(String),
    ts               DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    detector         LowCardinality(String),
    severity         LowCardinality(String),
    policy           LowCardinality(String),
    agent            LowCardinality(String),
    trace_id         String CODEC(ZSTD(1)),
    value            Nullable(Float64),
    threshold        Nullable(Float64),
    message          String CODEC(ZSTD(1)),
    evidence         String CODEC(ZSTD(1)),
    source_partition Int32 CODEC(T64, ZSTD(1)),
    source_offset    Int64 CODEC(Delta, ZSTD(1)),
    seq              Int32 CODEC(T64, ZSTD(1)),
    kafka_topic      LowCardinality(String),
    kafka_partition  Int32 CODEC(T64, ZSTD(1)),
    kafka_offset     Int64 CODEC(Delta, ZSTD(1)),
    ingested_at      DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1)),
    INDEX by_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ts)
PRIMARY KEY (tenant, toStartOfHour(ts))
ORDER BY (tenant, toStartOfHour(ts), alert_id)
TTL ingested_at + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- The record as it was, and what the __connect.errors.* headers say about it. error_topic, error_partition and
-- error_offset name the record that failed; without such headers, the dead letter itself. A record that is rejected
-- again by the same stage after a restart is the same row.
CREATE TABLE IF NOT EXISTS dead_letters
(
    tenant          LowCardinality(String),
    ts              DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    stage           LowCardinality(String),
    reason          LowCardinality(String),
    exception_class LowCardinality(String),
    message         String CODEC(ZSTD(1)),
    stacktrace      String CODEC(ZSTD(1)),
    error_topic     LowCardinality(String),
    error_partition Int32 CODEC(T64, ZSTD(1)),
    error_offset    Int64 CODEC(Delta, ZSTD(1)),
    key             String CODEC(ZSTD(1)),
    value           String CODEC(ZSTD(1)),
    tombstone       Bool,
    headers         Map(String, String) CODEC(ZSTD(1)),
    kafka_topic     LowCardinality(String),
    kafka_partition Int32 CODEC(T64, ZSTD(1)),
    kafka_offset    Int64 CODEC(Delta, ZSTD(1)),
    ingested_at     DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ts)
PRIMARY KEY (tenant, stage, toStartOfHour(ts))
ORDER BY (tenant, stage, toStartOfHour(ts), error_topic, error_partition, error_offset)
TTL ingested_at + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
