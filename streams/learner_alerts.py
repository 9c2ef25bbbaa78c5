"""What learners have to say, as records of ``alert.avsc``: a function of policy, epoch and occasion, so a repeated one is the same record."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from typing import Any

from learners.drift import Alarm
from learners.influence import Leaning
from steersman.arms import level_text
from steersman.errors import SnapshotError
from streams.held_learner import HeldLearner


def rejected_alert(held: HeldLearner, error: SnapshotError, now_us: int, partition: int) -> dict[str, Any]:
    """Return the alert that a learner made no usable snapshot."""
    return _alert(
        held,
        "learner_rejected",
        held.learner.version,
        f"The learner of {held.spec.key} made no usable snapshot ({error}); agents keep the last good one. "
        "Look at its latest rewards, then reset or roll back the policy.",
        {"epoch": held.learner.epoch, "version": held.learner.version, "partition": partition},
        now_us,
    )


def drift_alert(held: HeldLearner, version: int, alarm: Alarm, now_us: int) -> dict[str, Any]:
    """Return the alert that the world has changed for a level."""
    levels = [(knob, level) for knob, values in held.spec.arms.knobs.items() for level in values]
    knob, level = levels[alarm.level]
    what = ("quality", "cost", "latency")[alarm.component]
    return _alert(
        held,
        "drift",
        version,
        f"The {what} of {held.spec.key} with {knob} = {level_text(level)} is no longer what it was: the learner forgets most of what "
        "it knew of that level and explores more widely for a while. Nothing has to be done; look whether a model, an index or a "
        "price has changed.",
        {"epoch": held.learner.epoch, "version": version, "level": alarm.level, "component": alarm.component},
        now_us,
        "INFO",
    )


def leaning_alert(held: HeldLearner, version: int, leaning: Leaning, now_us: int) -> dict[str, Any]:
    """Return the alert that a source of judgements leans to one side; value and threshold are its lean and the crowd's."""
    side = "above" if leaning.lean > 0 else "below"
    made = _alert(
        held,
        "source_leans",
        version,
        f"Source {leaning.source!r} of {held.spec.key} judges {abs(leaning.lean):.3g} {side} what is expected, in the mean of its "
        f"{leaning.judgements} judgements; the others are {leaning.crowd:.3g} off, to either side. It is believed all the same. If it "
        f"should not be: steersman quarantine {shlex.quote(leaning.source)} --policy {held.spec.name}",
        {"epoch": held.learner.epoch, "version": version, "judgements": leaning.judgements},
        now_us,
        "WARNING",
    )
    return {**made, "value": leaning.lean, "threshold": leaning.crowd}


def relearned_alert(held: HeldLearner, now_us: int) -> dict[str, Any]:
    """Return the alert that a policy has been learned again, after a change of its quarantine."""
    count = len(held.spec.quarantine)
    return _alert(
        held,
        "relearned",
        held.learner.epoch,
        f"{held.spec.key} has been learned again from the log, without {count} source{'s' * (count != 1)} in quarantine: epoch {held.learner.epoch}, "
        f"version {held.learner.version}. Nothing has to be done.",
        {"epoch": held.learner.epoch, "version": held.learner.version, "quarantined": count},
        now_us,
        "INFO",
    )


def superseded_alert(held: HeldLearner, now_us: int, partition: int) -> dict[str, Any]:
    """Return the alert that another deployment's learner publishes the policy."""
    epoch, version = held.superseded_by.rank if held.superseded_by is not None else (0, 0)
    return _alert(
        held,
        "learner_superseded",
        epoch,
        f"Another learner of {held.spec.key} publishes epoch {epoch}; this one, of epoch {held.learner.epoch}, has stopped: it "
        "learns and publishes nothing, agents follow the other. Find out which deployment is one too many and stop it. For "
        "this one to go on in its place, stop its workers, run 'python -m streams reset --stage learn --partition "
        f"{partition}' and start them again.",
        {
            "epoch": held.learner.epoch,
            "version": held.learner.version,
            "published_epoch": epoch,
            "published_version": version,
            "partition": partition,
        },
        now_us,
    )


def _alert(
    held: HeldLearner,
    detector: str,
    occasion: int,
    message: str,
    evidence: Mapping[str, int],
    now_us: int,
    severity: str = "CRITICAL",
) -> dict[str, Any]:
    identity = f"{detector}/{held.spec.key}/{held.learner.epoch}/{occasion}"
    return {
        "alert_id": hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
        "tenant": held.spec.tenant,
        "ts": now_us,
        "detector": detector,
        "severity": severity,
        "policy": held.spec.name,
        "agent": "",
        "trace_id": "",
        "value": None,
        "threshold": None,
        "message": message,
        "evidence": json.dumps(evidence),
        "source_partition": -1,
        "source_offset": -1,
        "seq": 0,
    }
