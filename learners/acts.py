"""What operators may do to a policy, and how a policy stands by it. Pure.

==========  ==========================================================================================================
act         what it does
==========  ==========================================================================================================
PIN         agents get the weights of an earlier version, learning goes on unseen
UNPIN       agents get what is learned again
FREEZE      what was learned so far is published once more, in stage FROZEN, and nothing after it
UNFREEZE    publishing goes on
ROLLBACK    with a snapshot, as PIN, also of a frozen policy; without one the baseline decides: a guarded policy goes to
            shadow with its cooldown, any other to a shadow that only PROMOTE ends
PROMOTE     the next stage: apprentice, shadow, canary share by share, live
RETIRE      agents use their baseline, for good
RESTORE     what RETIRE did is undone
==========  ==========================================================================================================
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Final, Self

from steersman.codec import Codec
from steersman.errors import DecodeError, SnapshotError, SteersmanError
from steersman.snapshot import PolicySnapshot

from .guard import APPRENTICE, CANARY, LIVE, SHADOW
from .guard_spec import GuardSpec
from .state import StateError

ACTS: Final = ("PIN", "UNPIN", "FREEZE", "UNFREEZE", "ROLLBACK", "PROMOTE", "RETIRE", "RESTORE")
"""Names of the acts, as in ``policy_act.avsc``."""
SHARES: Final = tuple(GuardSpec().shares)
"""Canary shares of a policy without a guard that was rolled back and is promoted step by step."""
MAX_SNAPSHOT: Final = 16 << 20
"""Largest encoded snapshot; unit: bytes."""
WORDS: Final = ("retired", "frozen", "pinned", APPRENTICE, SHADOW, CANARY, LIVE)
"""How a policy may stand, in a word; the first that is true of it."""


class Refused(SteersmanError):
    """An act that the policy, as it stands, does not allow; says why."""


@dataclass(frozen=True)
class Pin:
    """The published version whose weights agents get.

    Attributes
    ----------
    epoch, version : int
        Which one.
    record : bytes
        The snapshot as it was published, in single-object encoding; empty where it is no longer at hand.
    """

    epoch: int
    version: int
    record: bytes

    @cached_property
    def snapshot(self) -> PolicySnapshot:
        """The snapshot; StateError when it cannot be read."""
        try:
            record = Codec("policy_snapshot", max_bytes=MAX_SNAPSHOT).decode(self.record)
            return PolicySnapshot.from_record(record)
        except (DecodeError, SnapshotError) as error:
            raise StateError(
                f"the pinned version {self.epoch}.{self.version} cannot be read: {error}; pin another version, or unpin the policy"
            ) from error


@dataclass(frozen=True)
class Act:
    """One act of an operator.

    Attributes
    ----------
    act_id : str
        What makes a repeated one the same.
    act : str
        One of `ACTS`.
    ts : int
        When it was asked for; unit: microseconds since 1970-01-01 UTC.
    who, why : str
        For the record.
    expected : str
        How the policy must stand, one of `WORDS`; empty for however it does.
    in_epoch : int
        Epoch that the policy was in when the act was asked for, -1 where unknown.
    pin : Pin or None
        What PIN and ROLLBACK are to go back to.
    lineage : str
        Lineage of that version.
    problem : str
        Why it cannot be obeyed, whatever the policy; empty mostly.
    """

    act_id: str
    act: str
    ts: int
    who: str = ""
    why: str = ""
    expected: str = ""
    in_epoch: int = -1
    pin: Pin | None = None
    lineage: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Standing:
    """How a policy stands by the acts so far.

    Attributes
    ----------
    retired, frozen : bool
    stage : str
        Stage of a policy without a guard: ``shadow``, ``canary`` or ``live``.
    step : int
        Which of `SHARES` in canary.
    pin : Pin or None
    """

    retired: bool = False
    frozen: bool = False
    stage: str = LIVE
    step: int = 0
    pin: Pin | None = None

    @property
    def still(self) -> bool:
        """Whether what is learned stays unseen."""
        return self.retired or self.frozen or self.pin is not None

    def word(self, guard_stage: str | None = None) -> str:
        """How it stands in a word of `WORDS`, under a guard in this stage if there is one."""
        if self.retired:
            return "retired"
        if self.frozen:
            return "frozen"
        return "pinned" if self.pin is not None else guard_stage or self.stage

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, the record as base64."""
        made = asdict(self)
        if self.pin is not None:
            made["pin"]["record"] = base64.b64encode(self.pin.record).decode()
        return made

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`; StateError for anything else."""
        try:
            pin = values["pin"]
            return cls(**{**values, "pin": None if pin is None else pin_of(pin)})
        except (TypeError, KeyError) as error:
            raise StateError(f"a standing in a learner's state cannot be read: {error!r}"[:300]) from error


def pin_of(values: Mapping[str, Any]) -> Pin:
    """A pin from JSON; StateError for anything else."""
    try:
        return Pin(values["epoch"], values["version"], base64.b64decode(values["record"], validate=True))
    except (TypeError, KeyError, binascii.Error) as error:
        raise StateError(f"a pin in a learner's state cannot be read: {error!r}"[:300]) from error


def check(standing: Standing, act: Act, guard_stage: str | None, epoch: int, lineage: str) -> None:
    """Let an act pass, or say why the policy does not allow it as it stands.

    Parameters
    ----------
    standing : Standing
    act : Act
    guard_stage : str or None
        Stage of the guard, None without one.
    epoch : int
        Epoch of the learner.
    lineage : str
        Lineage of the learner.

    Raises
    ------
    Refused
        In words for the operator.
    """
    now, stage = standing.word(guard_stage), guard_stage or standing.stage
    why = ""
    if act.act not in ACTS:
        why = f"this version knows no act {act.act!r}; it knows {', '.join(ACTS)}"
    elif act.problem:
        why = act.problem
    elif act.expected and act.expected != now:
        why = f"the policy is {now}, not {act.expected} as the act supposes: look at it again"
    elif standing.retired and act.act != "RESTORE":
        why = "the policy is retired: restore it first"
    elif standing.frozen and act.act in ("PIN", "UNPIN", "PROMOTE"):
        why = "the policy is frozen: unfreeze it first"
    elif act.act == "PIN" and act.pin is None:
        why = "a pin names a version and holds its snapshot; this one does not"
    elif act.pin is not None and act.lineage != lineage:
        why = (
            f"version {act.pin.epoch}.{act.pin.version} is of another lineage (other arms, features, reward components or "
            "learner): what agents would do by it could not be learned from. Go back to the policies file of that time instead"
        )
    elif act.act == "ROLLBACK" and act.pin is None and stage in (APPRENTICE, SHADOW) and not standing.still:
        why = f"the policy is in {stage}: the baseline decides already"
    elif act.act == "PROMOTE" and stage == LIVE:
        why = "the policy is live already"
    elif act.act == "PROMOTE" and guard_stage is not None and act.in_epoch not in (-1, epoch):
        why = f"the act was meant for epoch {act.in_epoch}, the policy is in epoch {epoch}: look at it again"
    elif act.act == "FREEZE" and standing.frozen:
        why = "the policy is frozen already"
    elif act.act == "UNPIN" and standing.pin is None:
        why = "the policy is not pinned"
    elif act.act == "UNFREEZE" and not standing.frozen:
        why = "the policy is not frozen by an act (freeze = true in the policies file is taken out there)"
    elif act.act == "RESTORE" and not standing.retired:
        why = "the policy is not retired"
    if why:
        raise Refused(why)


def effect(standing: Standing, act: str, pin: Pin | None, *, guarded: bool) -> Standing:
    """How the policy stands after an act that passed `check`; where there is a guard, the stage is the guard's to change."""
    match act:
        case "PIN":  # whoever names the weights wants them followed
            return replace(standing, pin=pin, stage=LIVE, step=0)
        case "UNPIN":
            return replace(standing, pin=None)
        case "FREEZE" | "UNFREEZE":
            return replace(standing, frozen=act == "FREEZE")
        case "RETIRE" | "RESTORE":
            return replace(standing, retired=act == "RETIRE")
        case "ROLLBACK" if pin is not None:
            return replace(standing, pin=pin, frozen=False, stage=LIVE, step=0)
        case "ROLLBACK":
            return replace(standing, pin=None, frozen=False, stage=LIVE if guarded else SHADOW, step=0)
        case _ if guarded:
            return standing
    if standing.stage == SHADOW:
        return replace(standing, stage=CANARY, step=0)
    if standing.step + 1 < len(SHARES):
        return replace(standing, step=standing.step + 1)
    return replace(standing, stage=LIVE, step=0)
