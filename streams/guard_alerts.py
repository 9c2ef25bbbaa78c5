"""Changes of stage as alerts: a function of the transition alone, so a repeated one is the same record."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from learners.guard import Transition
from learners.spec import PolicySpec

DETECTOR = "guard"


def guard_alert(spec: PolicySpec, epoch: int, transition: Transition, act_id: str = "") -> dict[str, Any]:
    """Return the record of ``alert.avsc`` that tells of a change of stage: CRITICAL for a rollback, else INFO.

    `act_id` is that of the operator's act which led to it, if one did.

    Its value is the lower bound of policy minus baseline where there is one (for a rollback the difference seen), its
    threshold 0.
    """
    t, figures = transition, dict(transition.evidence)
    identity = f"{DETECTOR}/{spec.key}/{epoch}/{t.version}{act_id and f'/{act_id}'}"
    share = f" {t.share:.0%}" if t.after == "canary" else ""
    value = None
    if "policy_utility" in figures:
        value = figures["policy_utility"] - figures["control_utility"] if t.rollback else figures["lower_bound"]
    evidence = {"epoch": epoch, "version": t.version, "from": t.before, "to": t.after, "share": t.share, **figures}
    return {
        "alert_id": hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
        "tenant": spec.tenant,
        "ts": t.ts,
        "detector": DETECTOR,
        "severity": "CRITICAL" if t.rollback else "INFO",
        "policy": spec.name,
        "agent": "",
        "trace_id": "",
        "value": value,
        "threshold": None if value is None else 0.0,
        "message": f"{spec.key} {'is rolled back' if t.rollback else 'goes'} from {t.before} to {t.after}{share}: {t.why}.",
        "evidence": json.dumps(evidence),
        "source_partition": -1,
        "source_offset": -1,
        "seq": 0,
    }
