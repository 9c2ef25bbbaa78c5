"""Kafka to ClickHouse: migrations, the writer, and the views that everybody reads."""
