"""Online learners of routing policies: no Kafka, no Faust, no ClickHouse in here."""
