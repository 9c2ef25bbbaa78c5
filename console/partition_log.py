"""One partition of a topic, read from its beginning: see `streams.partition_log`."""

from __future__ import annotations

from streams.partition_log import LogRecord, PartitionLog

__all__ = ["LogRecord", "PartitionLog"]
