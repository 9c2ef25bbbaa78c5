"""The guard of one policy: apprentice, shadow, canary, live, and back when it must be. Pure.

=============  ==========================  ==================================================================================
stage          who decides                 goes on when
=============  ==========================  ==================================================================================
apprentice     the service itself          ``apprentice`` rewards of its own choices were learned from
shadow         the service itself; the     ``shadow`` rewards came, or, after a rollback, the cooldown is over
               policy is computed
canary         the policy for a share of   the lower bound of policy minus baseline is above 0: at the last share with all of
               the traces                  the confidence asked for, at an earlier one with its part of it
live           the policy, but for the     never; back to shadow when the policy has become worse than the baseline, from
               control group               canary as well
=============  ==========================  ==================================================================================

A function of the rewards learned from, in their order, and of nothing else: the log gives the same stages again. A reward
counts in the comparison only when it was decided by a version of the present stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from steersman.lanes import in_share

from .comparison import Comparison
from .guard_spec import GuardSpec

APPRENTICE, SHADOW, CANARY, LIVE = "apprentice", "shadow", "canary", "live"
_PUBLISHED = {APPRENTICE: "SHADOW", SHADOW: "SHADOW", CANARY: "CANARY", LIVE: "LIVE"}
_MAX_DOUBLINGS = 6


@dataclass(frozen=True)
class Transition:
    """A change of stage, with what it rests on.

    Attributes
    ----------
    before, after : str
        Stages.
    share : float
        Share of the traces that follow the policy from now on.
    version : int
        Version of the policy with which it takes effect.
    ts : int
        Event time of the reward that led to it; unit: microseconds since 1970-01-01 UTC.
    rollback : bool
        Whether the policy lost ground.
    why : str
        In words.
    evidence : mapping of str to number
        Figures: rewards and mean utility of either side since the stage began, lower bound of the difference, evidence.
    """

    before: str
    after: str
    share: float
    version: int
    ts: int
    rollback: bool
    why: str
    evidence: Mapping[str, float]


class Guard:
    """Watches over one policy.

    Parameters
    ----------
    settings : GuardSpec
    policy : str
        Name of the policy.
    quality_weight : float
        Weight of the quality in the utility.
    since : int
        Version of the learner from which on it watches; not 0 where it was set up, or set up anew, later.

    Attributes
    ----------
    policy, quality_weight : str, float
        As given.
    stage : str
        ``apprentice``, ``shadow``, ``canary`` or ``live``.
    transitions : list of Transition
        That nobody has taken yet.
    """

    def __init__(self, settings: GuardSpec, policy: str, quality_weight: float, since: int = 0) -> None:
        self.settings = settings
        self.since = since
        self.stage: str = settings.start
        self.transitions: list[Transition] = []
        self.policy = policy
        self.quality_weight = quality_weight
        self._span = quality_weight * settings.quality_span
        self._step = 0
        self._entered = since + (since > 0)  # the version itself was published before, in another stage
        self._rewards = 0
        self._rollbacks = 0
        self._fresh_starts = 0
        self._last: Transition | None = None
        self._comparison = Comparison()

    @property
    def share(self) -> float:
        """Share of the traces that follow the policy."""
        if self.stage == CANARY:
            return self.settings.shares[self._step]
        return 1.0 - self.settings.control if self.stage == LIVE else 0.0

    @property
    def published(self) -> tuple[str, float]:
        """Stage and canary share of a snapshot."""
        if self.settings.freeze:
            return "FROZEN", self.share
        stage = _PUBLISHED[self.stage]
        return stage, (1.0 if stage == "SHADOW" else self.share)

    @property
    def alpha(self) -> float:
        """Chance of a false promotion that is left for this attempt; all attempts together have what the settings say."""
        before = self._rollbacks + self._fresh_starts
        return self.settings.alpha / ((before + 1) * (before + 2))

    def compare_anew(self, quality_weight: float, version: int) -> None:
        """Go on in the same stage under other weights or another baseline: what was earned before does not compare.

        Parameters
        ----------
        quality_weight : float
        version : int
            The last version of the learner before the change.
        """
        self.quality_weight = quality_weight
        self._span = quality_weight * self.settings.quality_span
        self._entered = version + 1
        self._fresh_starts += 1
        self._comparison = Comparison()

    def observe(self, reward: Mapping[str, Any], version: int) -> None:
        """Take note of a reward that was learned from.

        Parameters
        ----------
        reward : mapping
            A record of ``reward.avsc``.
        version : int
            The learner's version with it.
        """
        utility = reward["utility"]
        if version <= self.since or utility is None or not math.isfinite(utility):
            return
        if self.stage in (APPRENTICE, SHADOW):
            self._rewards += 1
            if self._rewards >= self._needed:
                self._advance(reward["ts"], version)
            return
        side = self._side(reward)
        if side is None:
            return
        s = self.settings
        self._comparison.add(utility, side, span=self._span, tolerance=s.tolerance, alpha=self.alpha)
        if self._comparison.worse_evidence >= 1.0 / s.false_alarm:
            self._roll_back(reward["ts"], version)
        elif self.stage == CANARY and self._comparison.better.log_evidence >= self._proof:
            self._advance(reward["ts"], version)

    @property
    def _needed(self) -> int:
        """Rewards to wait for in apprentice or shadow."""
        s = self.settings
        if self.stage == APPRENTICE:
            return s.apprentice
        return s.cooldown * 2 ** min(self._rollbacks - 1, _MAX_DOUBLINGS) if self._rollbacks else s.shadow

    @property
    def _proof(self) -> float:
        """Logarithm of the e-value at which the present canary share is left."""
        return math.log(1.0 / self.alpha) * (self._step + 1) / len(self.settings.shares)

    def _side(self, reward: Mapping[str, Any]) -> bool | None:
        """Whether the policy decided (True) or the baseline (False); None where the reward does not count."""
        decided_by = reward["policy_version"]
        if decided_by is None or decided_by < self._entered:
            return None
        lane, mode = in_share(reward["trace_id"], self.policy, self.share), reward["mode"]
        if self.stage == CANARY:
            return lane if mode == "CANARY" else None
        if mode == "LIVE":
            return True
        # A trace that the routers hold out tells about all its policies at once, so it counts only where there is nothing better.
        return False if mode == "HOLDOUT" and (not lane or not self.settings.control) else None

    def promote(self, why: str, ts: int, version: int, entered: int) -> None:
        """Go to the next stage whatever the evidence, because somebody wants it; not for a policy that is live.

        Parameters
        ----------
        why : str
            In words.
        ts : int
            When it was asked for; unit: microseconds since 1970-01-01 UTC.
        version : int
            Version of the learner.
        entered : int
            Version from which on a reward was decided in the new stage.
        """
        evidence, before = self._evidence(), self.stage
        self._next_stage()
        self._enter(before, why, evidence, ts, version, rollback=False)
        self._entered = entered

    def take_back(self, why: str, ts: int, version: int, entered: int) -> None:
        """Go to shadow because somebody wants it, with the cooldown of any rollback; parameters as of `promote`."""
        evidence, before = self._evidence(), self.stage
        self.stage = SHADOW
        self._rollbacks += 1
        self._enter(before, why, evidence, ts, version, rollback=True)
        self._entered = entered

    def _next_stage(self) -> None:
        if self.stage == APPRENTICE:
            self.stage = SHADOW
        elif self.stage == SHADOW:
            self.stage, self._step = CANARY, 0
        elif self._step + 1 < len(self.settings.shares):
            self._step += 1
        else:
            self.stage = LIVE

    def _advance(self, ts: int, version: int) -> None:
        evidence = self._evidence()
        before, share = self.stage, self.share
        self._next_stage()
        if before == APPRENTICE:
            why = f"{self._rewards} rewards of the service's own choices were learned from"
        elif before == SHADOW:
            why = f"{self._rewards} rewards came in shadow"
        else:
            bound = evidence["lower_bound"]
            why = (
                f"it earns more than the baseline: at a share of {share:.0%}, {evidence['policy_utility']:.4f} against "
                f"{evidence['control_utility']:.4f}, at least {bound:+.4f} more with {evidence['confidence']:.1%} confidence at any time"
            )
        self._enter(before, why, evidence, ts, version, rollback=False)

    def _roll_back(self, ts: int, version: int) -> None:
        evidence = self._evidence()
        before = self.stage
        self.stage = SHADOW
        self._rollbacks += 1
        why = (
            f"it has become worse than the baseline: {evidence['policy_utility']:.4f} against {evidence['control_utility']:.4f} since this "
            f"stage began, evidence {evidence['worse_evidence']:.0f} of {1.0 / self.settings.false_alarm:.0f}; the baseline decides, and "
            f"the policy is tried again after {self._needed} rewards"
        )
        self._enter(before, why, evidence, ts, version, rollback=True)

    def _enter(
        self, before: str, why: str, evidence: Mapping[str, float], ts: int, version: int, *, rollback: bool
    ) -> None:
        self._entered = version
        self._rewards = 0
        self._comparison.begin_stage(anew=self.stage != CANARY or before != CANARY)
        self._last = Transition(before, self.stage, self.share, version, ts, rollback, why, evidence)
        self.transitions.append(self._last)

    def _evidence(self) -> dict[str, float]:
        c = self._comparison
        if self.stage in (APPRENTICE, SHADOW):
            return {"rewards": self._rewards, "rollbacks": self._rollbacks}
        alpha = math.exp(-self._proof) if self.stage == CANARY else self.alpha
        return {
            "policy_rewards": c.policy.n,
            "policy_utility": c.policy.mean,
            "control_rewards": c.control.n,
            "control_utility": c.control.mean,
            "comparisons": c.blocks,
            "deviation": c.deviation,
            "lower_bound": c.better.lower(alpha) if c.better.n else 0.0,
            "confidence": 1.0 - alpha,
            "worse_evidence": c.worse_evidence,
            "rollbacks": self._rollbacks,
        }

    def to_json(self) -> dict[str, Any]:
        """Its state, for JSON."""
        return {
            "since": self.since,
            "stage": self.stage,
            "step": self._step,
            "entered": self._entered,
            "rewards": self._rewards,
            "rollbacks": self._rollbacks,
            "fresh_starts": self._fresh_starts,
            "last": None if self._last is None else asdict(self._last),
            "comparison": self._comparison.to_json(),
        }

    @classmethod
    def of(cls, settings: GuardSpec, policy: str, quality_weight: float, state: Mapping[str, Any]) -> Guard:
        """Go on from a state of the same settings."""
        guard = cls(settings, policy, quality_weight, state["since"])
        guard.stage, guard._step, guard._entered = state["stage"], state["step"], state["entered"]
        guard._rewards, guard._rollbacks, guard._fresh_starts = (
            state["rewards"],
            state["rollbacks"],
            state["fresh_starts"],
        )
        guard._last = None if state["last"] is None else Transition(**state["last"])
        guard._comparison = Comparison.of(state["comparison"])
        return guard
