"""Detectors of policies, as the learning stage drives them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from learners.detector_settings import DetectorSettings
from streams.detect.alert_book import AlertBook
from streams.detect.catalog import POLICY
from streams.detect.contract import PolicyDetector
from streams.detect.hit_brake import HitBrake
from streams.trace_state import to_json

KEY_PREFIX: Final = "detect:"
_ALERTS: Final = KEY_PREFIX  # no policy's key is empty

Brake = Callable[[str, Mapping[str, Any]], Any]
"""Told of every alert of a detector that is a brake: key of the policy (or shard), alert record."""


class PolicyWatch:
    """The detectors of the policies of one partition of the reward topic.

    Parameters
    ----------
    settings : DetectorSettings
        Thresholds.
    partition : int
        Number of the partition; stamped on the alerts.
    counters : Counter of str
        Where to count alerts.
    brake : callable, optional
        Called within `add` with alerts of the detectors that ``[detectors] brakes`` names, and with those of `HitBrake`, which
        counts the hits of the detectors of traces among them. Such alerts also say ``"brake": true`` in their evidence.
        Called again for the same alert when rewards are repeated after a restart: `alert_id` is the same then.
    """

    def __init__(
        self, settings: DetectorSettings, partition: int, counters: Counter[str], brake: Brake | None = None
    ) -> None:
        self._settings = settings
        self._partition = partition
        self._book = AlertBook(settings, counters)
        self._brake = brake
        self._brakes = frozenset((*settings.brakes, HitBrake.name))
        self._makers: list[type[PolicyDetector]] = [make for make in POLICY if make.name not in settings.off]
        if not HitBrake(settings).idle:
            self._makers.append(HitBrake)
        self._held: dict[str, tuple[list[int], list[PolicyDetector]]] = {}  # offset of the last reward; detectors
        self._dirty: set[str] = set()

    def add(self, key: str, offset: int, reward: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Show the next reward of a policy (or shard) to its detectors.

        Parameters
        ----------
        key
            Key of the reward.
        offset
            Its Kafka offset; one that was seen before is passed over.
        reward
            The record.

        Returns
        -------
        list of dict
            Alerts, with provenance.
        """
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = [-1], [make(self._settings) for make in self._makers]
        at, detectors = held
        if offset <= at[0]:
            return []
        at[0] = offset
        self._dirty.add(key)
        alerts: list[dict[str, Any]] = []
        found = [(detector, finding) for detector in detectors for finding in detector.add(reward)]
        if not found or not self._book.begin(offset):
            return alerts
        for detector, finding in found:
            alert = self._book.of_policy(detector, finding, reward)
            if alert is None:
                continue
            alert["source_partition"], alert["source_offset"], alert["seq"] = self._partition, offset, len(alerts)
            alerts.append(alert)
            if self._brake is not None and detector.name in self._brakes:
                self._brake(key, alert)
        return alerts

    def dump_dirty(self) -> dict[str, bytes | None]:
        """State changed since the last call."""
        dirty: dict[str, bytes | None] = {}
        if (book := self._book.dump()) is not None:
            dirty[_ALERTS] = book
        for key in sorted(self._dirty):
            at, detectors = self._held[key]
            dirty[KEY_PREFIX + key] = to_json([at[0], {one.name: one.to_state() for one in detectors}])
        self._dirty.clear()
        return dirty

    def restore(self, item: str, data: bytes) -> None:
        """Take back one item that `dump_dirty` gave; ValueError when it is not one. Detectors of other names are passed over."""
        if item == _ALERTS:
            self._book.restore(data)
            return
        at, states = json.loads(data)
        detectors = [make(self._settings) for make in self._makers]
        for detector in detectors:
            if detector.name in states:
                detector.from_state(states[detector.name])
        self._held[item.removeprefix(KEY_PREFIX)] = [at], detectors
