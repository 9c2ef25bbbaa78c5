"""Detectors as brakes of the guard: an alert becomes an act of rollback, on record as an operator's would be. Pure.

A learner's state is a function of its rewards and of the acts on the control topic (`learners.operated`). So a brake is
no call into the learner but such an act: it is obeyed at a definite place, over restarts, and a rebuild obeys it there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from learners.acts import Standing
from learners.guard import CANARY, LIVE
from learners.operated import OperatedLearner
from learners.protocol import Learner
from streams.control import MAX_TEXT
from streams.operator import act_record

_DECIDES: Final = (LIVE, CANARY)
"""How a policy stands that a brake can stop: in all other cases the baseline decides, or an operator has said what is to be."""


def standing_of(learner: Learner) -> str:
    """How a policy stands, in a word of `learners.acts.WORDS`."""
    if isinstance(learner, OperatedLearner):
        return learner.standing.word(learner.guard_stage)
    guard = getattr(learner, "guard", None)
    return Standing().word(None if guard is None else guard.stage)


def brake_act(alert: Mapping[str, Any], standing: str) -> dict[str, Any] | None:
    """Return the record of ``policy_act.avsc`` by which a brake takes a policy back to the baseline; None where it decides anyway.

    Parameters
    ----------
    alert
        Record of ``alert.avsc``, of a detector that is a brake. The same alert makes the same act, so a repeat does nothing.
    standing
        How the policy stands. If it stands otherwise by the time the act is read, the act is refused.
    """
    if standing not in _DECIDES:
        return None
    return act_record(
        alert["tenant"],
        alert["policy"],
        "ROLLBACK",
        who=f"detector {alert['detector']}",
        why=alert["message"][:MAX_TEXT],
        ts=alert["ts"],
        expected=standing,
        act_id=hashlib.blake2b(f"brake/{alert['alert_id']}".encode(), digest_size=16).hexdigest(),
    )
