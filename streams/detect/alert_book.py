"""From findings to alerts: records of ``alert.avsc``, and no flood of them.

Of one detector and tenant no more than so many alerts go out in a minute of event time; the others are counted, and
the next alert says how many there were. A trace has one alert of each detector at most; the join sees to that.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from learners.detector_settings import DetectorSettings
from streams.detect.contract import Detector, Finding
from streams.detect.trace_watch import Found, evidence_of
from streams.trace_state import to_json

STATE_KEY: Final = "alerts"
_MINUTE_US: Final = 60_000_000
_MAX_COUNTS: Final = 4096
"""Counts kept; of the oldest, what was held back is forgotten."""
_MAX_EVIDENCE: Final = 16_384


class AlertBook:
    """Alerts of one partition.

    Parameters
    ----------
    settings : DetectorSettings
        The cap, and which detectors are brakes.
    counters : Counter of str
        Where to count ``alerts``, ``alerts_<detector>`` and ``alerts_suppressed``.
    """

    def __init__(self, settings: DetectorSettings, counters: Counter[str]) -> None:
        self._most = settings.alerts_per_minute
        self._brakes = frozenset(settings.brakes)
        self._count = counters
        # (detector, tenant) -> [minute, alerts in it, held back since the last one]
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._at = -1
        self._dirty = False

    def begin(self, offset: int) -> bool:
        """Say which record the next findings are of; False when all of its alerts were counted before a restart, and told."""
        if offset <= self._at:
            return False
        self._at = offset
        self._dirty = True
        return True

    def of_trace(self, found: Found) -> dict[str, Any] | None:
        """Alert of a finding in a trace, without provenance; None when there are too many.

        The caller adds the provenance.
        """
        trace_id, tenant = found.key
        identity = f"{found.detector.name}/{tenant}/{trace_id}/{found.finding.evidence.get('decision_id', '')}"
        alert = self._alert(found.detector, found.finding, identity, tenant, found.policy, found.ts)
        if alert is not None:
            alert["agent"], alert["trace_id"] = found.agent, trace_id
            alert["evidence"] = self._evidence(alert, evidence_of(found))
        return alert

    def of_policy(self, detector: Detector, finding: Finding, reward: Mapping[str, Any]) -> dict[str, Any] | None:
        """Alert of a finding about a policy, at one of its rewards; as `of_trace`."""
        identity = f"{detector.name}/{reward['tenant']}/{reward['policy']}/{finding.subject}/{reward['decision_id']}"
        alert = self._alert(detector, finding, identity, reward["tenant"], reward["policy"], reward["ts"])
        if alert is not None:
            alert["agent"], alert["trace_id"] = reward["agent"], reward["trace_id"]
            alert["evidence"] = self._evidence(alert, {"trace_ids": [reward["trace_id"]], **finding.evidence})
        return alert

    def dump(self) -> bytes | None:
        """JSON form if anything has changed since the last call, None otherwise."""
        if not self._dirty:
            return None
        self._dirty = False
        return to_json([self._at, [[*key, *count] for key, count in self._counts.items()]])

    def restore(self, data: bytes) -> None:
        """Take back what `dump` gave."""
        self._at, counts = json.loads(data)
        self._counts = {(detector, tenant): rest for detector, tenant, *rest in counts}

    def _alert(
        self, detector: Detector, finding: Finding, identity: str, tenant: str, policy: str, ts: int
    ) -> dict[str, Any] | None:
        self._dirty = True
        key = detector.name, tenant
        count = self._counts.pop(key, None) or [0, 0, 0]
        self._counts[key] = count  # the latest at the end
        if len(self._counts) > _MAX_COUNTS:
            del self._counts[next(iter(self._counts))]
        minute = ts // _MINUTE_US
        if minute > count[0]:
            count[0], count[1] = minute, 0
        if count[1] >= self._most:
            count[2] += 1
            self._count["alerts_suppressed"] += 1
            return None
        count[1] += 1
        held_back, count[2] = count[2], 0
        self._count["alerts"] += 1
        self._count[f"alerts_{detector.name}"] += 1
        return {
            "alert_id": hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
            "tenant": tenant,
            "ts": ts,
            "detector": detector.name,
            "severity": detector.severity,
            "policy": policy,
            "agent": "",
            "trace_id": "",
            "value": float(finding.value),
            "threshold": float(finding.threshold),
            "message": finding.message,
            "evidence": {"suppressed": held_back} if held_back else {},
            "source_partition": -1,
            "source_offset": -1,
            "seq": 0,
        }

    def _evidence(self, alert: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
        whole = {**evidence, **alert["evidence"]}
        if alert["detector"] in self._brakes:
            whole["brake"] = True
        text = json.dumps(whole, allow_nan=False)
        if len(text) <= _MAX_EVIDENCE:
            return text
        return json.dumps({name: whole[name] for name in ("trace_ids", "suppressed", "brake") if name in whole})
