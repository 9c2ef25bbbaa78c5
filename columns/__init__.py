"""Encoded Avro records as columns: what the stream stages count and what the sink stores, read in one way."""
