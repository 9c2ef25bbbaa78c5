"""The doors for those who speak something else than our Avro: OTLP over HTTP, the Collector's Kafka topic, feedback as JSON."""
