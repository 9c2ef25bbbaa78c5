"""Acts of operators from the page: which buttons a policy has, what a click writes, and what became of it."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import Any, Final

from learners.acts import ACTS as KNOWN
from learners.acts import WORDS
from learners.difference import Difference, difference
from page.store import Row
from sinks.published import published_of, usable
from steersman.errors import SteersmanError
from streams.operator import Aim, Operator, act_record

RECORDS: Final = """
SELECT epoch, version, pinned, stage, record_base64 FROM v_policy_records
WHERE tenant = {tenant:String} AND policy = {policy:String} AND (epoch, version) IN ((toInt64({e1:Int64}), toInt64({v1:Int64})),
    (toInt64({e2:Int64}), toInt64({v2:Int64})))
ORDER BY epoch, version, acts
"""
ACTS: Final = """
SELECT ts, act, who, why, outcome, reason, at_epoch, at_version, standing, epoch AS to_epoch, version AS to_version
FROM v_policy_acts WHERE tenant = {tenant:String} AND policy = {policy:String} ORDER BY ts DESC, act_id LIMIT 50
"""
MAX_WHY: Final = 500
"""Longest reason; unit: characters."""
_REMEMBERED: Final = 100
_WAIT_S: Final = 10.0


@dataclass(frozen=True)
class Button:
    """Something that can be done to a policy as it stands.

    Attributes
    ----------
    act, label, hint : str
        Name of the act, and what it says and does.
    """

    act: str
    label: str
    hint: str


_BUTTONS: Final = {
    "FREEZE": Button("FREEZE", "Freeze", "publish what was learned so far and nothing more"),
    "UNFREEZE": Button("UNFREEZE", "Unfreeze", "publish again"),
    "UNPIN": Button("UNPIN", "Unpin", "let agents have what is learned again"),
    "ROLLBACK": Button("ROLLBACK", "Roll back", "to shadow: the baseline decides, learning goes on"),
    "PROMOTE": Button("PROMOTE", "Promote", "to the next stage, whatever the evidence"),
    "RETIRE": Button("RETIRE", "Retire", "agents use their baseline until it is restored"),
    "RESTORE": Button("RESTORE", "Restore", "undo the retirement"),
}
_OFFERED: Final = {
    "live": ("FREEZE", "ROLLBACK", "RETIRE"),
    "canary": ("FREEZE", "ROLLBACK", "PROMOTE", "RETIRE"),
    "shadow": ("FREEZE", "PROMOTE", "RETIRE"),
    "pinned": ("UNPIN", "FREEZE", "ROLLBACK", "RETIRE"),
    "frozen": ("UNFREEZE", "ROLLBACK", "RETIRE"),
    "retired": ("RESTORE",),
}


def word_of(row: Row) -> str:
    """How a policy stands, in a word of `learners.acts.WORDS`, by its newest row of `page.store.HISTORY`."""
    stage = str(row["stage"]).lower()
    return "pinned" if row["pinned"] and stage not in ("retired", "frozen") else stage


def buttons(word: str) -> list[Button]:
    """Return what can be done to a policy that stands so."""
    return [_BUTTONS[act] for act in _OFFERED.get("shadow" if word == "apprentice" else word, ())]


@dataclass(frozen=True)
class Told:
    """What became of a click.

    Attributes
    ----------
    good : bool
        Whether the policy obeyed.
    text : str
        For people.
    standing : str
        How the policy stands since; empty where nobody knows.
    """

    good: bool
    text: str
    standing: str = ""


class Desk:
    """Writes acts for the viewers of the page, and remembers what became of them. `ask` blocks.

    Parameters
    ----------
    operator : Operator
    tenant : str
        Whose policies.
    wait_s : float
        Longest wait for a learner; unit: seconds.
    """

    def __init__(self, operator: Operator, tenant: str, wait_s: float = _WAIT_S) -> None:
        self._operator, self._tenant, self._wait_s = operator, tenant, wait_s
        self._told: dict[str, Told] = {}

    def told(self, act_id: str) -> Told | None:
        """What became of an act that was asked for here, None for any other."""
        return self._told.get(act_id)

    def ask(self, policy: str, act: str, why: str, expected: str, epoch: int, aim: Aim | None) -> str:
        """Write an act, wait for what becomes of it, and return its id."""
        record = act_record(
            self._tenant, policy, act, who="page", why=why, ts=time.time_ns() // 1000, expected=expected, in_epoch=epoch, aim=aim,
        )  # fmt: skip
        try:
            outcome = self._operator.outcome(record["act_id"], self._operator.ask(record), self._wait_s)
        except SteersmanError:
            # Without its own words: they hold addresses.
            told = Told(False, "Kafka did not take it; nothing was changed.")
        else:
            told = _told(act, outcome, self._wait_s)
        while len(self._told) >= _REMEMBERED:
            del self._told[next(iter(self._told))]
        self._told[record["act_id"]] = told
        return str(record["act_id"])


def _told(act: str, outcome: dict[str, Any] | None, wait_s: float) -> Told:
    name = _BUTTONS[act].label if act in _BUTTONS else act.capitalize()
    if outcome is None:
        return Told(
            False,
            f"{name}: asked for, but no learner has answered in {wait_s:.0f} s. It is obeyed as soon as a worker runs.",
        )
    where = f"at version {outcome['at_epoch']}.{outcome['at_version']}"
    if outcome["outcome"] == "APPLIED":
        return Told(True, f"{name}: done {where}; the policy is {outcome['standing']}.", outcome["standing"])
    return Told(False, f"{name}: refused {where}: {outcome['reason']}.", outcome["standing"])


def problem_of(act: str, why: str, expected: str) -> str:
    """What is wrong with a form; empty when nothing is."""
    if act not in KNOWN:
        return "There is no such act."
    if not why:
        return "Say why: it is kept with the act."
    if len(why) > MAX_WHY:
        return f"The reason has more than {MAX_WHY} characters."
    return "" if expected in ("", *WORDS) else "There is no such standing."


def aim_of(rows: list[Row]) -> Aim | None:
    """The first record of a version with weights of its own among rows of `RECORDS`."""
    for row in rows:
        if not row["pinned"] and row["stage"] != "RETIRED":
            return Aim(row["epoch"], row["version"], base64.b64decode(row["record_base64"]))
    return None


def weights_between(rows: list[Row], old: tuple[int, int], new: tuple[int, int]) -> Difference | None:
    """What changed in the weights from one version to another; None where one of them is not kept."""
    of = {(row["epoch"], row["version"]): row for row in rows}
    if old not in of or new not in of:
        return None
    one, other = (usable(published_of([of[at]["record_base64"]])) for at in (old, new))
    return difference(one[0], other[0]) if one and other else None
