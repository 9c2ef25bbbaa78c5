"""Which shard of a policy learns a reward, and under which key."""

from __future__ import annotations

MAX_SHARDS = 64
_MARK = "#"


def shard_of(source_partition: int, shards: int) -> int:
    """Number of the shard that learns the rewards of a source partition."""
    return source_partition % shards


def shard_key(key: str, shard: int) -> str:
    """Key of a shard's rewards, state and statistics: ``tenant/policy#k``; no policy's name holds a ``#``."""
    return f"{key}{_MARK}{shard}"
