-- Who was forgotten (`steersman forget`). subject_hash: scrypt of the name with subject_salt, both in hex, so that the
-- row proves a deletion to whoever knows the name, and names nobody. deleted: rows by table.
CREATE TABLE IF NOT EXISTS forgotten
(
    tenant       LowCardinality(String),
    forgotten_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    request      String CODEC(ZSTD(1)),
    scope        LowCardinality(String),
    subject_salt String CODEC(ZSTD(1)),
    subject_hash String CODEC(ZSTD(1)),
    traces       UInt64 CODEC(T64, ZSTD(1)),
    deleted      Map(String, UInt64) CODEC(ZSTD(1)),
    ingested_at  DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(forgotten_at)
ORDER BY (tenant, forgotten_at, request)
TTL ingested_at + INTERVAL 3650 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- Rows that a deletion under way is about. The deleting statements name the request and not the person, since servers
-- keep the text of mutations. Emptied when the deletion is through.
CREATE TABLE IF NOT EXISTS forget_marks
(
    tenant      LowCardinality(String),
    request     String CODEC(ZSTD(1)),
    kind        LowCardinality(String),
    id          String CODEC(ZSTD(1)),
    ingested_at DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, request, kind, id)
TTL ingested_at + INTERVAL 7 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE OR REPLACE VIEW v_forgotten AS
SELECT * EXCEPT (ingested_at)
FROM forgotten FINAL;
