"""Names of the Kafka topics, all derived from one prefix."""

from __future__ import annotations

import re
from dataclasses import dataclass

from steersman.errors import ConfigError

_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,199}")


@dataclass(frozen=True)
class Topics:
    """Topic names under a prefix; the number at the end is the major version of the contract.

    Parameters
    ----------
    prefix : str
        Letters, digits, dots and dashes. No underscore: Kafka warns when ``.`` and ``_`` mix, since
        both become ``_`` in metric names.

    Raises
    ------
    ConfigError
        If the prefix cannot be part of a topic name.
    """

    prefix: str = "steersman"

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ConfigError(
                f"topic prefix {self.prefix!r} is not usable: start with a letter or digit, then letters, digits, "
                "'.' or '-', at most 200 characters (setting STEERSMAN_TOPIC_PREFIX)"
            )

    @property
    def trace(self) -> str:
        """Trace events, keyed by trace id."""
        return f"{self.prefix}.trace.v1"

    @property
    def reward(self) -> str:
        """Rewards, keyed by ``tenant/policy``, those of a sharded policy by ``tenant/policy#shard``."""
        return f"{self.prefix}.reward.v1"

    @property
    def rollup(self) -> str:
        """Window aggregates, keyed by the window key."""
        return f"{self.prefix}.rollup.v1"

    @property
    def alert(self) -> str:
        """Alerts, keyed by ``tenant/policy`` or the tenant."""
        return f"{self.prefix}.alert.v1"

    @property
    def policy(self) -> str:
        """Policy snapshots, compacted, keyed by ``tenant/policy``."""
        return f"{self.prefix}.policy.v1"

    @property
    def control(self) -> str:
        """Acts of operators and what became of them, keyed by ``tenant/policy``."""
        return f"{self.prefix}.control.v1"

    @property
    def shard(self) -> str:
        """Statistics of the shards of hot policies, compacted, keyed by ``tenant/policy#shard``."""
        return f"{self.prefix}.shard.v1"

    @property
    def dead_letter(self) -> str:
        """Records that could not be processed, with their original key and bytes."""
        return f"{self.prefix}.dead-letter.v1"

    @property
    def audit(self) -> str:
        """Ledger entries of the stages."""
        return f"{self.prefix}.audit.v1"

    @property
    def state(self) -> str:
        """State of the stream stages, compacted."""
        return f"{self.prefix}.state.v1"
