"""`steersman dlq`: look at records that could not be processed, and bring them back once the cause is gone."""
