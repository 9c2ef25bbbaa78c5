"""A candidate plays the log: it learns in the order in which rewards became known, and says at each decision what it would do. Pure.

*Prequential* (A. P. Dawid, "Statistical theory: the prequential approach", JRSS A 147, 1984): at a decision the candidate knows only
the rewards that had closed before it. Its probabilities are then fixed before the decision's own reward is known, so the weighted
terms of `learners.ope` are as fair for a policy that keeps changing as for a fixed one. The model of the rewards that DR and SWITCH
need is made the same way: each arm's mean over the rewards that had closed.

What is learned from is what the policy that ran had chosen. Had the candidate decided, it would have seen the rewards of its own
choices; no log has those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learners.registry import make_learner
from learners.whatif.reward_log import Rewarded
from learners.whatif.translation import Translation
from steersman.scoring import Scorer

Float = NDArray[np.float64]
Progress = Callable[[int, int], None]

FIRST_BLOCK = 10
"""Decisions before the first new snapshot; the blocks then double, as far as `SNAPSHOTS` asks."""

SNAPSHOTS = 150
"""About how many snapshots a replay makes; a running learner makes up to ten a second."""

MOST, MOST_CELLS = 200_000, 10_000_000
"""Decisions that are evaluated, and decisions times arms; of more, as many evenly over the time."""

METRICS = ("quality", "cost_micro_usd", "latency_us", "failures")


@dataclass(frozen=True, eq=False)
class Played:
    """What the candidate would have done.

    Attributes
    ----------
    rewards : sequence of Rewarded
        The decisions that can answer, by the time at which they were made: n.
    eligible : bool array (n, K_ran)
        Arms that were allowed, of those that ran.
    target : float64 array (n, K_ran)
        Prequential probabilities of the arms that ran.
    models : mapping of str to float64 array (n, K_ran)
        For each of `METRICS` the mean of each arm before the decision.
    start : int
        Where the last part begins.
    final : float64 array (n - start, K_ran)
        Probabilities under the one policy that had been learned when the last part began.
    learned : int
        Rewards learned from, in all.
    learned_before : int
        Those before the last part.
    skipped : mapping of str to int
        Rewards that the candidate could not learn from, by reason.
    no_choice : int
        Drawn decisions left out because the candidate had no arm that was allowed.
    thinned : int
        Drawn decisions left out because there were too many.
    unseen_share : float
        Probability that the final policy would have given to arms that never ran.
    """

    rewards: Sequence[Rewarded]
    eligible: NDArray[np.bool_]
    target: Float
    models: Mapping[str, Float]
    start: int
    final: Float
    learned: int
    learned_before: int
    skipped: Mapping[str, int]
    no_choice: int
    thinned: int
    unseen_share: float


@dataclass
class _Means:
    """Running means of each arm that ran."""

    sums: Float
    counts: Float
    skipped: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, n_arms: int) -> _Means:
        return cls(np.zeros((len(METRICS), n_arms)), np.zeros((len(METRICS), n_arms)))

    def add(self, arm: int, values: Sequence[float | None]) -> None:
        for m, value in enumerate(values):
            if value is not None:
                self.sums[m, arm] += value
                self.counts[m, arm] += 1.0

    def now(self) -> Float:
        """Mean of each arm (metrics, K); of one without rewards the mean of all, 0 before the first."""
        n = self.counts.sum(axis=1, keepdims=True)
        overall = self.sums.sum(axis=1, keepdims=True) / np.maximum(n, 1.0)
        return np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1.0), overall)


def values_of(translation: Translation, reward: Rewarded) -> tuple[float | None, float, float, float]:
    """`METRICS` of a reward under the candidate's default quality and prices."""
    quality = reward.quality
    if quality is None or reward.defaulted:
        quality = translation.candidate.reward.default
    return quality, reward.cost_micro_usd * float(translation.price[reward.arm]), reward.latency_us, reward.failures


def play(
    translation: Translation,
    rewards: Sequence[Rewarded],
    *,
    last_part: float = 0.25,
    progress: Progress = lambda done, total: None,
) -> Played:
    """Let a candidate learn from the log and say what it would have done.

    Parameters
    ----------
    translation : Translation
    rewards : sequence of Rewarded
        By the time at which they closed, as `learners.whatif.reward_log.LogReader` gives them.
    last_part : float
        Share of the decisions, the last ones, on which one fixed policy is evaluated as well; above 0, below 1.
    progress : callable, optional
        Told after each snapshot how many decisions of how many are done.

    Raises
    ------
    ValueError
        When no decision can answer.
    steersman.errors.SnapshotError
        When the candidate diverges.
    """
    drawn = sorted((reward for reward in rewards if reward.drawn), key=lambda reward: reward.decided_at)
    masks = [_masks(translation, reward) for reward in drawn]
    kept = [i for i, (_, mine) in enumerate(masks) if mine.any()]
    no_choice = len(drawn) - len(kept)
    most = min(MOST, MOST_CELLS // len(translation.ran.arms))
    if len(kept) > most:
        kept = [kept[i] for i in np.linspace(0, len(kept) - 1, most).astype(int)]
    if not kept:
        raise ValueError("no decision on the log can answer")
    asked = [drawn[i] for i in kept]
    n, n_ran = len(asked), len(translation.ran.arms)
    start = min(max(round(n * (1.0 - last_part)), 1), n - 1) if n > 1 else 0
    target, models = np.zeros((n, n_ran)), np.zeros((len(METRICS), n, n_ran))
    final = np.zeros((n - start, n_ran))
    learner, means, unseen, before = _Learning(translation, rewards), _Means.of(n_ran), 0.0, 0
    xs = [asked[i].features[translation.columns] for i in range(n)]
    mine = [masks[i][1] for i in kept]
    for first, end in blocks(n, start):
        learner.until(asked[first].decided_at, means)
        scorer = Scorer(learner.snapshot())
        models[:, first:end] = means.now()[:, None]
        for i in range(first, end):
            target[i] = _spread(translation, scorer, xs[i], mine[i])
        if first == start:
            before = learner.learned
            for i in range(start, n):
                final[i - start] = target[i] if i < end else _spread(translation, scorer, xs[i], mine[i])
            unseen = _unseen(translation, scorer, xs[start:])
        progress(end, n)
    learner.until(None, means)
    return Played(
        asked, np.array([masks[i][0] for i in kept]), target, dict(zip(METRICS, models, strict=True)), start, final,
        learner.learned, before, learner.skipped, no_choice, len(drawn) - no_choice - n, unseen,
    )  # fmt: skip


def blocks(n: int, start: int) -> Iterator[tuple[int, int]]:
    """First and end of each run of decisions under one snapshot; one begins at `start`."""
    first, size, most = 0, FIRST_BLOCK, max(FIRST_BLOCK, n // SNAPSHOTS)
    while first < n:
        end = min(first + size, n)
        if first < start < end:
            end = start
        yield first, end
        first, size = end, min(2 * size, most)


class _Learning:
    """The candidate's learner, and how far it is in the log."""

    def __init__(self, translation: Translation, rewards: Sequence[Rewarded]) -> None:
        self._translation, self._rewards, self._at = translation, rewards, 0
        self._learner = make_learner(translation.candidate)
        self.skipped: dict[str, int] = {}

    @property
    def learned(self) -> int:
        return self._learner.version

    def until(self, before: int | None, means: _Means) -> None:
        """Learn what had closed before a time; all with None."""
        batch: list[dict[str, Any]] = []
        while self._at < len(self._rewards) and (before is None or self._rewards[self._at].ts < before):
            reward = self._rewards[self._at]
            self._at += 1
            means.add(reward.arm, values_of(self._translation, reward))
            record = record_of(self._translation, reward)
            if record is None:
                self._skip("of arms that the candidate does not have", 1)
                continue
            batch.append(record)
            if len(batch) == 1000:
                self._learn(batch)
                batch = []
        self._learn(batch)

    def _learn(self, batch: Sequence[Mapping[str, Any]]) -> None:
        for reason, count in self._learner.learn_many(batch).skipped.items():
            self._skip(reason, count)

    def _skip(self, reason: str, count: int) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + count

    def snapshot(self) -> Any:
        return self._learner.snapshot(0)


def record_of(translation: Translation, reward: Rewarded) -> dict[str, Any] | None:
    """The reward record that the candidate would have learned from; None where it has no such arm.

    It is marked SHADOW: what ran was not the candidate's doing, so its ceilings' accounts do not stand for it.
    """
    candidate, arm = translation.candidate, int(translation.to_candidate[reward.arm])
    if arm < 0:
        return None
    quality, cost, latency, failures = values_of(translation, reward)
    return {
        "decision_id": reward.decision_id, "tenant": candidate.tenant, "policy": candidate.name, "ts": reward.ts,
        "decided_at": reward.decided_at, "policy_epoch": None, "policy_version": None, "arm": candidate.arms.labels[arm],
        "propensity": reward.propensity, "mode": "SHADOW" if reward.mode != "HOLDOUT" else "HOLDOUT",
        "features": reward.features[translation.columns].tolist(), "quality": quality, "cost_micro_usd": cost,
        "latency_us": latency, "failures": failures, "reward_spec": candidate.reward_hash, "source": reward.source,
        "peers": reward.peers, "tool_calls": reward.tool_calls, "source_partition": -1, "source_offset": -1, "seq": 0,
    }  # fmt: skip


def _masks(translation: Translation, reward: Rewarded) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What was allowed, of the arms that ran and of the candidate's."""
    ran = np.ones(len(translation.ran.arms), dtype=bool)
    if reward.eligible:
        ran[:] = False
        ran[list(reward.eligible)] = True
    to_ran = translation.to_ran
    return ran, (to_ran >= 0) & ran[to_ran]


def _spread(translation: Translation, scorer: Scorer, x: NDArray[np.float32], mine: NDArray[np.bool_]) -> Float:
    """Probabilities of the arms that ran."""
    chance = scorer.score(x, mine).propensity
    made = np.zeros(len(translation.ran.arms))
    known = translation.to_ran >= 0
    made[translation.to_ran[known]] = chance[known]
    return made


def _unseen(translation: Translation, scorer: Scorer, xs: Sequence[NDArray[np.float32]]) -> float:
    """Mean probability of arms that never ran, were they allowed; over 200 contexts at the most."""
    never = translation.to_ran < 0
    if not never.any():
        return 0.0
    some = xs[:: max(len(xs) // 200, 1)]
    return float(np.mean([scorer.score(x).propensity[never].sum() for x in some]))
