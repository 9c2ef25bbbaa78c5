"""How old the newest version of each policy is, as the metrics show it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from learners.lineage import Head
from streams.metrics import Metrics


class PolicyAges:
    """Shows version and age of each policy.

    Parameters
    ----------
    metrics
        Where to.
    monotonic_s
        Clock; unit: seconds.

    Notes
    -----
    Metrics name no tenant. Where several have a policy of one name, the highest version and the highest age are shown.
    """

    def __init__(self, metrics: Metrics, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._monotonic_s = monotonic_s
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}

    def look(self, heads: Mapping[str, Head]) -> None:
        """Take note of what is published, by ``tenant/policy``."""
        now = self._monotonic_s()
        version: dict[str, int] = {}
        age: dict[str, float] = {}
        for key, head in heads.items():
            rank, since = self._seen.get(key, ((-1, -1), now))
            if head.rank != rank:
                rank, since = head.rank, now
            self._seen[key] = rank, since
            name = key.partition("/")[2]
            version[name] = max(version.get(name, 0), head.version)
            age[name] = max(age.get(name, 0.0), now - since)
        for name in version:
            self._metrics.policy_version.labels(name).set(version[name])
            self._metrics.policy_age_seconds.labels(name).set(age[name])
