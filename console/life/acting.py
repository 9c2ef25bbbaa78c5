"""Acts of operators from the command line: checked, written, and waited for."""

from __future__ import annotations

import getpass
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from console.life.snapshots import parse_version, published
from console.output import err, out, print_json
from console.policy import held
from console.target import Target, registry_of
from learners import state
from learners.acts import Act, Pin, Refused, check, effect
from learners.lineage import head_of
from learners.operated import standing_in
from steersman.errors import ConfigError, SteersmanError, Unreachable
from steersman.kafka_admin import KafkaAdmin
from steersman.topics import Topics
from streams.control import MAX_TEXT
from streams.learning_stage import partition_of
from streams.operator import Aim, Operator, act_record
from streams.state import read_state
from streams.topics import existing_partitions

APPLIED, REFUSED = 0, 4
_STAGE: Final = "learn"


@dataclass(frozen=True)
class Wish:
    """What somebody wants of a policy.

    Attributes
    ----------
    tenant, policy, act
        Of which policy, and what: see `learners.acts.ACTS`.
    why, who
        For the record; who is ``user@host`` when it is empty.
    to
        Version to go back to, empty for none.
    expected
        How the policy must stand for that, empty for however it does.
    """

    tenant: str
    policy: str
    act: str
    why: str
    who: str = ""
    to: str = ""
    expected: str = ""


def whoami() -> str:
    """Return ``user@host``."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def reason(why: str | None) -> str:
    """Return the reason given, or ask for it; ConfigError where nobody can be asked."""
    if not why and sys.stdin.isatty():
        why = err.input("why? ")
    if not (why or "").strip():
        raise ConfigError('say why with --why "...": it is kept with the act')
    return str(why).strip()[:MAX_TEXT]


def perform(target: Target, wish: Wish, timeout_s: float, *, dry_run: bool, as_json: bool) -> int:
    """Ask for an act and wait for the learner's answer; returns 0 when it obeyed, 4 when it refused.

    Raises
    ------
    SteersmanError
        When there is no such policy or version.
    Unreachable
        When no broker answers, or no learner does in time.
    """
    found = held(target, wish.tenant)
    if wish.policy not in found:
        known = ", ".join(sorted(found)) or "none"
        raise SteersmanError(
            f"tenant {wish.tenant!r} has no policy {wish.policy!r} at {target.brokers}; it has: {known}"
        )
    now = found[wish.policy].snapshot
    aim = _aim(target, wish, now.epoch) if wish.to else None
    record = act_record(
        wish.tenant, wish.policy, wish.act,
        who=wish.who or whoami(), why=wish.why, ts=time.time_ns() // 1000, expected=wish.expected, in_epoch=now.epoch, aim=aim,
    )  # fmt: skip
    if dry_run:
        return _print(_foreseen(target, record), as_json=as_json, dry_run=True)
    topics = Topics(target.prefix)
    operator = Operator(target.brokers, topics, registry_of(topics))
    offset = operator.ask(record)
    began = time.monotonic()
    err.print(f"{wish.act.lower()} of {wish.policy} asked for; waiting for its learner ...", highlight=False)
    outcome = operator.outcome(
        record["act_id"], offset, timeout_s,
        lambda: err.print(f"  no answer yet, {time.monotonic() - began:.0f} s of {timeout_s:.0f} s", highlight=False),
    )  # fmt: skip
    if outcome is None:
        raise Unreachable(
            f"the learner of {wish.tenant}/{wish.policy}",
            f"It has not answered within {timeout_s:.0f} s. The act {record['act_id']} stays on the control topic and is obeyed when a "
            "worker with the stage learn runs; 'steersman policy history' shows what became of it",
        )
    return _print(outcome, as_json=as_json, dry_run=False)


def _aim(target: Target, wish: Wish, epoch: int) -> Aim:
    at = parse_version(wish.to, epoch)
    found = published(target, wish.tenant, wish.policy, at)
    own = [one for one in found if not one.record["pinned"] and one.record["stage"] != "RETIRED"]
    if not own:
        copies = ", ".join(sorted({one.record["pinned"] or one.record["stage"].lower() for one in found}))
        raise SteersmanError(f"version {wish.to} of {wish.policy} has no weights of its own ({copies}): name another")
    return Aim(*at, own[0].value)


def _foreseen(target: Target, record: Mapping[str, Any]) -> dict[str, Any]:
    """What would become of an act, by the state that the learner saved last."""
    key = f"{record['tenant']}/{record['policy']}"
    saved = saved_state(target, key)
    if saved is None:
        raise SteersmanError(
            f"no state of {key} is saved yet, so nobody can tell; its worker saves one every few seconds"
        )
    origin = state.Origin.of(saved)
    standing, guard_stage = standing_in(saved)
    pin, lineage = None, ""
    if record["snapshot"]:
        from streams.edges import make_codecs

        pin = Pin(record["epoch"], record["version"], record["snapshot"])
        lineage = head_of(make_codecs(("policy_snapshot",))["policy_snapshot"].decode(record["snapshot"])).lineage
    act = Act(
        "", record["act"], record["ts"], expected=record["expected"], in_epoch=record["in_epoch"], pin=pin, lineage=lineage
    )  # fmt: skip
    foreseen = {**record, "at_epoch": origin.epoch, "at_version": origin.version}
    before = standing.word(guard_stage)
    try:
        check(standing, act, guard_stage, origin.epoch, origin.lineage)
    except Refused as error:
        return {**foreseen, "outcome": "REFUSED", "reason": str(error), "standing": before, "stands": before}
    after = effect(standing, act.act, pin, guarded=guard_stage is not None)
    by_guard = guard_stage is not None and (act.act == "PROMOTE" or (act.act == "ROLLBACK" and pin is None))
    then = "the guard's next stage" if by_guard and act.act == "PROMOTE" else "shadow" if by_guard else None
    word = then or after.word(guard_stage)
    return {**foreseen, "outcome": "APPLIED", "reason": "", "standing": word, "stands": before}


def saved_state(target: Target, key: str) -> bytes | None:
    """State of a policy's learner as it was saved last, None when there is none."""
    topics = Topics(target.prefix)
    counts = existing_partitions(KafkaAdmin(target.brokers), target.brokers)
    if topics.state not in counts:
        return None
    partition = partition_of(key, counts[topics.state])
    return read_state(target.brokers, topics.state, _STAGE, partition).items.get(key)


def _print(outcome: Mapping[str, Any], *, as_json: bool, dry_run: bool) -> int:
    applied = outcome["outcome"] == "APPLIED"
    if as_json:
        shown = {name: value for name, value in outcome.items() if name != "snapshot"}
        print_json({**shown, "dry_run": dry_run})
        return APPLIED if applied else REFUSED
    name, act = f"{outcome['tenant']}/{outcome['policy']}", outcome["act"].lower()
    where = f"epoch {outcome['at_epoch']}, version {outcome['at_version']}"
    would = "would be " if dry_run else ""
    to = f" to {outcome['epoch']}.{outcome['version']}" if outcome["version"] >= 0 else ""
    if applied:
        was = f"{outcome['stands']} -> " if dry_run else ""
        out.print(
            f"{act}{to} {would}applied: {name} {was}{outcome['standing']} ({where})", markup=False, highlight=False
        )
    else:
        out.print(f"{act}{to} {would}refused ({where}): {outcome['reason']}", markup=False, highlight=False)
    return APPLIED if applied else REFUSED
