"""Acts of operators between the control topic and the learners: from a record to an act, from an outcome to a record. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from learners.acts import MAX_SNAPSHOT, Act, Pin
from learners.lineage import head_of
from learners.outcome import Outcome
from learners.spec import PolicySpec
from steersman.codec import Codec
from steersman.errors import DecodeError, SnapshotError
from steersman.signing import PolicyVerifier
from steersman.snapshot import PolicySnapshot

MAX_TEXT: Final = 500
"""Longest reason and name that are kept; unit: characters."""


@dataclass(frozen=True)
class ControlLog:
    """What the control topic holds.

    Attributes
    ----------
    acts
        By policy key, offset and act in the order of the topic.
    answered
        Ids of the acts whose outcome is on the topic.
    """

    acts: Mapping[str, Sequence[tuple[int, Act]]] = field(default_factory=dict)
    answered: frozenset[str] = frozenset()


NO_ACTS: Final = ControlLog()
"""Nobody has wanted anything."""


def act_of(record: Mapping[str, Any], verifier: PolicyVerifier | None) -> Act:
    """Read a decoded record of ``policy_act.avsc``; what is wrong with its snapshot becomes the act's `problem`.

    Parameters
    ----------
    record
        The record.
    verifier
        Checks the signature of the snapshot, as agents do, so that who may write acts cannot make policies.
    """
    pin, lineage, problem = None, "", ""
    if record["snapshot"]:
        codec = Codec("policy_snapshot", max_bytes=MAX_SNAPSHOT)
        key = f"{record['tenant']}/{record['policy']}"
        try:
            held = codec.decode(record["snapshot"])
            PolicySnapshot.from_record(held)
            lineage = head_of(held).lineage
            pin = Pin(held["epoch"], held["version"], record["snapshot"])
            if f"{held['tenant']}/{held['policy']}" != key or (pin.epoch, pin.version) != (
                record["epoch"],
                record["version"],
            ):
                problem = "its snapshot is of another policy or version than it says"
            elif held["pinned"]:
                problem = f"that version is itself a copy of {held['pinned']}: name that one"
        except (DecodeError, SnapshotError) as error:
            problem = f"its snapshot cannot be used: {error}"
        if not problem and verifier is not None:
            reason = verifier.check(codec, key.encode(), record["snapshot"]).reason
            if reason and verifier.mode == "require":
                problem = f"its snapshot is not signed by a key that the learner trusts ({reason})"
    return Act(
        record["act_id"],
        record["act"],
        record["ts"],
        record["who"][:MAX_TEXT],
        record["why"][:MAX_TEXT],
        record["expected"],
        record["in_epoch"],
        pin,
        lineage,
        problem,
    )


def outcome_record(spec: PolicySpec, outcome: Outcome) -> dict[str, Any]:
    """Return the record of ``policy_act.avsc`` that tells what became of an act; the same outcome is the same record."""
    return {
        "act_id": outcome.act_id,
        "ts": outcome.ts,
        "tenant": spec.tenant,
        "policy": spec.name,
        "act": outcome.act,
        "who": outcome.who,
        "why": outcome.why,
        "epoch": outcome.aim[0],
        "version": outcome.aim[1],
        "snapshot": b"",
        "outcome": "REFUSED" if outcome.reason else "APPLIED",
        "reason": outcome.reason,
        "at_epoch": outcome.epoch,
        "at_version": outcome.version,
        "standing": outcome.standing,
    }
