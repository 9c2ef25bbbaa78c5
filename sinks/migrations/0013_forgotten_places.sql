-- Where in Kafka the rows came from that `steersman forget` deleted: places, and nothing of what was there. By them
-- `steersman verify` tells what was deleted from what was lost. They go a little after the records themselves, which Kafka
-- keeps for 30 days at most (streams/topics.py); after that a place points at nothing.
--   * stage: of a dead letter, the stage that had refused the record at this place; empty for the record's own row.
CREATE TABLE IF NOT EXISTS forgotten_places
(
    tenant          LowCardinality(String),
    request         String CODEC(ZSTD(1)),
    stage           LowCardinality(String),
    kafka_topic     LowCardinality(String),
    kafka_partition Int32 CODEC(T64, ZSTD(1)),
    kafka_offset    Int64 CODEC(Delta, ZSTD(1)),
    kafka_timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    ingested_at     DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ingested_at)
ORDER BY (tenant, kafka_topic, kafka_partition, kafka_offset, stage)
TTL ingested_at + INTERVAL 35 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
