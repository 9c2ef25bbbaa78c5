"""A learner that has obeyed acts of operators: any learner, guarded or not, and how the policy stands by them. Pure.

An act takes effect after a definite number of rewards and is on record in the state, so a replay obeys it at the same place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, NoReturn, Self

from steersman.errors import SnapshotError
from steersman.fingerprint import signed
from steersman.snapshot import PolicySnapshot, Source

from . import state
from .acts import SHARES, Act, Pin, Refused, Standing, check
from .around import LearnerAround
from .guard import CANARY, LIVE, SHADOW
from .outcome import Obeyed, Outcome, stands_after
from .protocol import Learner, LearnReport
from .spec import PolicySpec

_FIELD: Final = "acts"
_PUBLISHED: Final = {SHADOW: ("SHADOW", 1.0), LIVE: ("LIVE", 1.0)}
MAX_ACTS: Final = 500
"""Acts obeyed in one epoch."""
_TOLD: Final = 200
"""Outcomes that are remembered: an act repeated later than that is taken for another one."""
_WITH_RECORD: Final = 3
"""The last so many pins keep their snapshot; older ones cannot be published again."""


class OperatedLearner(LearnerAround):
    """Learns as the learner inside does; what is published of it is as operators want it.

    Parameters
    ----------
    inner : Learner
        What learns.
    spec : PolicySpec
        The policy.
    upto : int, optional
        A replay obeys no more than so many acts, those of earlier epochs included; all by default.

    Attributes
    ----------
    inner : Learner
        As given.
    standing : Standing
        How the policy stands.
    next_offset, newest_ts : int
        Offset of the control topic after the last act read, and the latest time of any act read.
    told : list of Outcome
        What became of the last acts, oldest first.
    """

    def __init__(self, inner: Learner, spec: PolicySpec, upto: int | None = None) -> None:
        super().__init__(inner)
        self.standing = self._base = Standing()
        self.next_offset = self.newest_ts = 0
        self.told: list[Outcome] = []
        self._spec = spec
        self._upto = upto
        self._before = 0  # acts obeyed in earlier epochs
        self._log: list[Obeyed] = []
        self._taken = 0  # of the log

    @classmethod
    def over(cls, spec: PolicySpec, inner: Learner, data: bytes) -> Learner:
        """The learner as the acts in a state want it, in the same epoch or in a later one; the learner itself where there are none."""
        origin, header, _ = state.unpack(data)
        if _FIELD not in header:
            return inner
        learner = cls(inner, spec)
        learner._load(header[_FIELD])
        if (origin.lineage, origin.epoch) != (spec.lineage, inner.epoch):
            learner._begin_epoch(keep_pin=origin.lineage == spec.lineage)
        return learner

    @classmethod
    def like(cls, before: Learner, inner: Learner, spec: PolicySpec) -> Learner:
        """A learner in another one's place, with the acts that that had obeyed."""
        if not isinstance(before, cls):
            return inner
        learner = cls(inner, spec)
        learner._load(before._dump())
        if inner.epoch != before.epoch:
            learner._begin_epoch(keep_pin=before._spec.lineage == spec.lineage)
        return learner

    @classmethod
    def replayed(cls, spec: PolicySpec, inner: Learner, data: bytes, upto: int | None = None) -> Learner:
        """A fresh learner that is going to `heed` a state: one that obeys acts, if there are any in it."""
        return cls(inner, spec, upto) if _FIELD in state.unpack(data)[1] else inner

    @classmethod
    def placed(cls, spec: PolicySpec, inner: Learner, data: bytes, upto: int | None = None) -> Learner:
        """A learner that stands at the end of its replay, with the acts in a state, up to so many (all by default)."""
        saved = state.unpack(data)[1]
        if _FIELD not in saved:
            return inner
        learner = cls(inner, spec, upto)
        learner._replay(saved[_FIELD])
        return learner

    @property
    def ready(self) -> bool:
        """Whether a snapshot can be made at once: that of a pinned version always."""
        return self.standing.pin is not None or self.inner.ready

    @property
    def acts(self) -> int:
        """Acts obeyed so far, those of earlier epochs included."""
        return self._before + self._taken

    @property
    def guard_stage(self) -> str | None:
        """Stage of the guard, None without one."""
        guard = getattr(self.inner, "guard", None)
        return None if guard is None else guard.stage

    @property
    def stage(self) -> tuple[str, float]:
        """Stage and canary share of a snapshot."""
        guard, standing = getattr(self.inner, "guard", None), self.standing
        if guard is not None:
            stage, share = guard.published
        elif standing.stage == CANARY:
            stage, share = "CANARY", SHARES[standing.step]
        else:
            stage, share = _PUBLISHED[standing.stage]
        if standing.retired:
            return "RETIRED", share
        return ("FROZEN", 0.0 if stage == "SHADOW" else share) if standing.frozen else (stage, share)

    # -- acts

    def obey(self, act: Act, offset: int) -> Outcome | None:
        """Obey an act from an offset of the control topic, or refuse it; None for one that was dealt with before."""
        self.next_offset = offset + 1
        self.newest_ts = max(self.newest_ts, act.ts)
        if self._knows(act):
            return None
        reason = ""
        try:
            if len(self._log) >= MAX_ACTS:
                raise Refused(f"{MAX_ACTS} acts were obeyed in this epoch, which is the most there may be")
            check(self.standing, act, self.guard_stage, self.epoch, self._spec.lineage)
        except Refused as error:
            reason = str(error)
        else:
            pin = None if act.pin is None else Standing(pin=act.pin).to_json()["pin"]
            turns = getattr(self.inner, "turns", 0)
            guarded = self.guard_stage is not None
            self._log.append(Obeyed(self.version, turns, act.act, f"{act.who}: {act.why}", act.ts, pin, guarded))
            self._forget_records()
            self._keep_up()
        aim = (-1, -1) if act.pin is None else (act.pin.epoch, act.pin.version)
        outcome = Outcome(
            act.act_id, act.act, act.who, act.why, act.ts, aim, reason, self.epoch, self.version,
            self.standing.word(self.guard_stage),
        )  # fmt: skip
        self.told = [*self.told, outcome][-_TOLD:]
        return outcome

    def is_new(self, act: Act, offset: int) -> bool:
        """Whether an act has not been read yet; a topic that was made anew begins at offset 0 again, with acts of a later time."""
        return offset >= self.next_offset or (act.ts > self.newest_ts and not self._knows(act))

    def _knows(self, act: Act) -> bool:
        return any(one.act_id == act.act_id for one in self.told)

    def _forget_records(self) -> None:
        pinned = [i for i, one in enumerate(self._log) if one.pin is not None and one.pin["record"]]
        for i in pinned[:-_WITH_RECORD]:
            pin = self._log[i].pin
            self._log[i] = self._log[i]._replace(pin={**(pin or {}), "record": ""})

    def _keep_up(self) -> None:
        """Obey the acts that come before the next reward."""
        while self._taken < len(self._log) and self._log[self._taken].version <= self.version:
            one = self._log[self._taken]
            self._taken += 1
            self.standing = stands_after(self.standing, one)
            if one.guarded and (one.act == "PROMOTE" or (one.act == "ROLLBACK" and one.pin is None)):
                pinned = self.standing.pin is not None
                self.inner.command(one.act, one.why, one.ts, one.turns, pinned=pinned)  # type: ignore[attr-defined]

    # -- learning

    def learn_many(self, rewards: Sequence[Mapping[str, Any]]) -> LearnReport:
        """Apply rewards, in the order of their log; in a replay, acts between them."""
        report = LearnReport()
        rest = list(rewards)
        while True:
            self._keep_up()
            due = self._log[self._taken].version - self.version if self._taken < len(self._log) else len(rest)
            part, rest = rest[:due], rest[due:]
            made = self.inner.learn_many(part)
            report = _joined(report, made) if report.outcomes else made
            if not rest:
                return report

    def revise(self, spec: PolicySpec) -> bool:
        """Go on under the settings of a spec of the same lineage; returns whether they are others than before."""
        self._spec = spec
        return bool(self.inner.revise(spec))  # type: ignore[attr-defined]

    def heed(self, data: bytes, revision: int | None = None) -> None:
        """Begin as the learner of a state had begun, and obey the acts where it did: for a replay. See `GuardedLearner.heed`."""
        self.inner.heed(data, revision)
        self._replay(state.unpack(data)[1][_FIELD])

    def _replay(self, saved: Mapping[str, Any]) -> None:
        """Begin where the epoch began, and obey what is due by now."""
        self._load(saved)
        if self._upto is not None:
            self._log = self._log[: max(0, self._upto - self._before)]
        self.standing, self._taken = self._base, 0
        self._keep_up()

    def settle(self) -> None:
        """Obey the acts and make the changes of settings that are due now: for a replay that has come to its end."""
        self._keep_up()
        self.inner.settle()

    # -- what is made

    def merge(self, shard: Any) -> NoReturn:
        """Refuse: a sum is made of learners, and acts are obeyed by the sum.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError("acts are obeyed by the sum of a policy's shards, not by a part of it")

    def snapshot(self, now_us: int) -> PolicySnapshot:
        """The policy as of now, as operators want it; SnapshotError when it is not fit to be used."""
        stage, share = self.stage
        pin = self.standing.pin
        pinned = "" if pin is None else f"{pin.epoch}.{pin.version}"
        made = self._learned(now_us, stage) if pin is None else self._as_pinned(pin, now_us)
        return replace(made, stage=stage, canary_share=share, acts=self.acts, pinned=pinned)

    def _learned(self, now_us: int, stage: str) -> PolicySnapshot:
        try:
            return self.inner.snapshot(now_us)
        except SnapshotError:
            if stage not in ("RETIRED", "SHADOW"):
                raise
            # The baseline decides, so the weights matter to nobody: a learner that has gone astray must not hinder that.
            core = getattr(self.inner, "inner", self.inner)
            return self._named(type(core)(self._spec, self.epoch).snapshot(now_us), now_us)

    def _as_pinned(self, pin: Pin, now_us: int) -> PolicySnapshot:
        return self._named(replace(pin.snapshot, signature=b"", not_after=None), now_us)

    def _named(self, made: PolicySnapshot, now_us: int) -> PolicySnapshot:
        """Other weights under the name of what was learned: agents follow what is newer only."""
        sources, inner = self.sources, self.inner
        return replace(
            made,
            epoch=self.epoch,
            version=self.version,
            created_at=now_us,
            applied_n=self.version,
            applied_hash=signed(inner.applied_hash),  # type: ignore[attr-defined]
            applied_sources=tuple(Source(p, *sources[p]) for p in sorted(sources)),
            revision=getattr(inner, "revision", 0),
            inherited=getattr(inner, "inherited_hash", ""),
        )

    # -- state

    def to_state(self) -> bytes:
        """The state of the learner inside, with the acts in its header."""
        return state.amend(self.inner.to_state(), {_FIELD: self._dump()})

    def _dump(self) -> dict[str, Any]:
        return {
            "base": self._base.to_json(),
            "before": self._before,
            "log": [list(one) for one in self._log],
            "next": [self.next_offset, self.newest_ts],
            "told": [asdict(one) for one in self.told],
        }

    def _load(self, saved: Mapping[str, Any]) -> None:
        try:
            self._base = Standing.of(saved["base"])
            self._before = saved["before"]
            self.next_offset, self.newest_ts = saved["next"]
            self._log = [Obeyed(*one) for one in saved["log"]]
            self.told = [Outcome(**{**one, "aim": (one["aim"][0], one["aim"][1])}) for one in saved["told"]]
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise state.StateError(f"the acts in a learner's state cannot be read: {error!r}"[:300]) from error
        self.standing = self._base
        for one in self._log:
            self.standing = stands_after(self.standing, one)
        self._taken = len(self._log)

    def _begin_epoch(self, *, keep_pin: bool) -> None:
        standing = self.standing if keep_pin else replace(self.standing, pin=None)
        self._before += len(self._log)
        self._base = self.standing = standing
        self._log, self._taken = [], 0

    @classmethod
    def from_state(cls, spec: PolicySpec, data: bytes) -> Self:
        """Refuse: `learners.registry.restore_learner` knows which learner is inside.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError("restore_learner makes an operated learner from its state")


def standing_in(data: bytes) -> tuple[Standing, str | None]:
    """How a policy stands by a state, and the stage of its guard, None without one; StateError when the state is damaged."""
    header = state.unpack(data)[1]
    guard_stage = header["guard"]["stage"] if "guard" in header else None
    saved = header.get(_FIELD)
    if saved is None:
        return Standing(), guard_stage
    standing = Standing.of(saved["base"])
    for one in saved["log"]:
        standing = stands_after(standing, Obeyed(*one))
    return standing, guard_stage


def _joined(one: LearnReport, other: LearnReport) -> LearnReport:
    return LearnReport(
        one.applied + other.applied,
        one.duplicates + other.duplicates,
        one.skipped + other.skipped,
        one.without_quality + other.without_quality,
        one.clipped + other.clipped,
        [*one.outcomes, *other.outcomes],
        [*one.alarms, *other.alarms],
    )
