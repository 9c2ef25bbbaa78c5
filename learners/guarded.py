"""A learner with a guard: any learner of the catalog, its snapshots in the stage that the guard has reached. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

from steersman.snapshot import PolicySnapshot

from . import state
from .around import LearnerAround
from .guard import APPRENTICE, SHADOW, Guard, Transition
from .guard_spec import GuardSpec
from .protocol import Learner, LearnReport
from .spec import PolicySpec

_FIELD = "guard"


class Turn(NamedTuple):
    """Settings that hold from a version of the learner on.

    Attributes
    ----------
    version : int
        Rewards applied before.
    revision : int
        The learner's own number of its settings, 0 where it has none.
    settings : mapping
        The guard's, and what makes that utilities compare: weights and baseline. JSON-ready.
    """

    version: int
    revision: int
    settings: Mapping[str, Any]


class GuardedLearner(LearnerAround):
    """Learns as the learner inside does, and lets the guard see every reward that was learned from, in order.

    Parameters
    ----------
    inner : Learner
        What learns.
    policy : str
        Name of the policy.

    Attributes
    ----------
    inner : Learner
        As given.
    guard : Guard or None
        What says in which stage the policy is; it is part of the state, so the log of rewards gives it again. None before a
        replay has come to where the guard was set up.
    """

    def __init__(self, inner: Learner, policy: str) -> None:
        super().__init__(inner)
        self.guard: Guard | None = None
        self._policy = policy
        self._turns: list[Turn] = []
        self._taken = 0  # turns that the guard has made

    @classmethod
    def over(cls, spec: PolicySpec, inner: Learner, data: bytes | None = None) -> Learner:
        """The learner under the guard that the policy asks for, if any; going on from a state of the same epoch where given."""
        if spec.guard is None:
            return inner
        learner = cls(inner, spec.name)
        if data is not None:
            origin, header, _ = state.unpack(data)
            if _FIELD in header and (origin.lineage, origin.epoch) == (spec.lineage, inner.epoch):
                learner._load(header[_FIELD])
        learner._turn(spec)
        return learner

    def learn_many(self, rewards: Sequence[Mapping[str, Any]]) -> LearnReport:
        """Apply rewards, in the order of their log."""
        version = self.inner.version
        report = self.inner.learn_many(rewards)
        for i, (reward, outcome) in enumerate(zip(rewards, report.outcomes, strict=True)):
            if outcome == "applied":
                self._keep_up(version)
                version += 1
                if self.guard is not None:
                    self.guard.observe({**reward, "utility": None} if i in report.unheard else reward, version)
        return report

    def take_transitions(self) -> list[Transition]:
        """Changes of stage since the last call."""
        if self.guard is None:
            return []
        taken, self.guard.transitions = self.guard.transitions, []
        return taken

    # -- settings

    def revise(self, spec: PolicySpec) -> bool:
        """Go on under the settings of a spec of the same lineage; returns whether they are others than before."""
        changed = bool(self.inner.revise(spec))  # type: ignore[attr-defined]
        if spec.guard is None:
            self.guard, self._turns, self._taken = None, [], 0
        else:
            self._turn(spec)
        return changed

    def heed(self, data: bytes, revision: int | None = None) -> None:
        """Begin as the learner of a state had begun, and change the settings where it did: for a replay.

        Parameters
        ----------
        data : bytes
            The state; what it has learned from rewards is not looked at.
        revision : int, optional
            The last revision of the learner inside to be repeated; all by default.
        """
        self.inner.heed(data, revision)
        self._repeat_turns(data, revision)

    def repeat_settings(self, data: bytes, revision: int | None = None) -> None:
        """As `learners.policy_learner.PolicyLearner.repeat_settings`."""
        self.inner.repeat_settings(data, revision)  # type: ignore[attr-defined]
        self._repeat_turns(data, revision)

    def _repeat_turns(self, data: bytes, revision: int | None) -> None:
        saved = state.unpack(data)[1].get(_FIELD, {"turns": []})
        turns = [Turn(*turn) for turn in saved["turns"]]
        self._turns = [turn for turn in turns if revision is None or turn.revision <= revision]
        self.guard, self._taken = None, 0
        self._keep_up(self.version)

    def settle(self) -> None:
        """Make the changes of settings that are due now: for a replay that has come to its end."""
        self.inner.settle()
        self._keep_up(self.version)

    @property
    def turns(self) -> int:
        """Changes of its settings that the guard has made."""
        return self._taken

    def command(self, act: str, why: str, ts: int, turns: int, *, pinned: bool) -> None:
        """Let the guard do what an operator wants: PROMOTE or ROLLBACK, see `learners.acts`.

        Parameters
        ----------
        act, why : str
        ts : int
            When it was asked for; unit: microseconds since 1970-01-01 UTC.
        turns : int
            Changes of settings that come before it.
        pinned : bool
            Whether agents hold on to one version.
        """
        version = self.version
        self._keep_up(version, turns)
        if self.guard is None:
            return
        # The version itself was published in the stage before; of a pinned policy it may be the only one there will be.
        entered = version if pinned else version + 1
        if act == "PROMOTE":
            self.guard.promote(why, ts, version, entered)
        elif self.guard.stage not in (APPRENTICE, SHADOW):
            self.guard.take_back(why, ts, version, entered)

    def _turn(self, spec: PolicySpec) -> None:
        """Go on under the settings of the spec."""
        settings = _settings_of(spec)
        if not self._turns or self._turns[-1].settings != settings:
            self._turns.append(Turn(self.version, getattr(self.inner, "revision", 0), settings))
        self._keep_up(self.version)

    def _keep_up(self, version: int, upto: int | None = None) -> None:
        """Make the turns, up to a number of them, that come before the reward after so many."""
        end = len(self._turns) if upto is None else min(upto, len(self._turns))
        while self._taken < end and self._turns[self._taken].version <= version:
            at, _, now = self._turns[self._taken]
            before = self._turns[self._taken - 1].settings if self._taken else now
            self._taken += 1
            guard, weight = GuardSpec(**now["guard"]), now["weights"]["quality"]
            if self.guard is None or self.guard.settings.digest != guard.digest:
                self.guard = Guard(guard, self._policy, weight, at)
                continue
            self.guard.settings = guard
            if any(now[name] != before[name] for name in ("weights", "baseline")):
                self.guard.compare_anew(weight, at)

    # -- what is made

    def merge(self, shard: Any) -> NoReturn:
        """Refuse: a guard has to see all rewards in one order.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError("a policy in shards has no guard")

    def snapshot(self, now_us: int) -> PolicySnapshot:
        """The policy as of now, in its stage; SnapshotError when it is not fit to be used."""
        made = self.inner.snapshot(now_us)
        if self.guard is None:
            return made
        stage, share = self.guard.published
        return replace(made, stage=stage, canary_share=share)

    def to_state(self) -> bytes:
        """The state of the learner inside, with the guard's in its header."""
        data = self.inner.to_state()
        if self.guard is None:
            return data
        return state.amend(data, {_FIELD: {"turns": self._turns, **self.guard.to_json()}})

    def _load(self, saved: Mapping[str, Any]) -> None:
        self._turns = [Turn(*turn) for turn in saved["turns"]]
        self._taken = len(self._turns)
        now = self._turns[-1].settings
        self.guard = Guard.of(GuardSpec(**now["guard"]), self._policy, now["weights"]["quality"], saved)

    @classmethod
    def from_state(cls, spec: PolicySpec, data: bytes) -> NoReturn:
        """Refuse: `learners.registry.restore_learner` knows which learner is inside.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError("restore_learner makes a guarded learner from its state")


def _settings_of(spec: PolicySpec) -> dict[str, Any]:
    guard = {} if spec.guard is None else spec.guard.model_dump(mode="json")
    return {"guard": guard, "weights": spec.reward.weights.model_dump(), "baseline": spec.baseline}
