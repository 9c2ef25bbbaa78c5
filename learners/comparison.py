"""A policy against its baseline, reward by reward: is it better, for certain; has it become worse. Pure.

Traces are assigned to policy or baseline by chance (`steersman.lanes`) and judged at the same time, so whatever else
changes (traffic, prices, the hour) meets both alike. Rewards are put together in small *blocks*, each closed as soon as it holds
a reward of either side; the difference of its two means has the true difference for its mean, whatever the share.

- Better: the anytime-valid lower bound of the difference (`learners.ope.sequence`). Its terms are bounded from below
  by the span of the quality or four standard deviations of the difference, whichever is more; what lies beyond on the good side is cut.
- Worse: a Shiryaev-Roberts e-detector (Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change
  detection", 2023): every block may be the one from which on the policy is worse, and the evidence for all of them is added up.
  With threshold 1 / f, a policy within the tolerance runs 1 / f blocks on the mean before it is taken for worse. Differences are
  cut at three standard deviations, so no single reward decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .ope.sequence import LowerSequence

WARM_UP = 30
"""Differences of neighbours from which the noise is estimated before anything is concluded."""

_MEMORY = 500
_OUTLIER = 5.0
_QUIETEST = 1e-3
_BETTER_CUT, _WORSE_CUT = 4.0, 3.0
_BETS = (0.25, 0.5, 0.9)


@dataclass
class Side:
    """Rewards of one side.

    Attributes
    ----------
    n, mean : int, float
        All since the stage began.
    last : float or None
        The last one.
    block_n, block_sum : int, float
        In the open block.
    """

    n: int = 0
    mean: float = 0.0
    last: float | None = None
    block_n: int = 0
    block_sum: float = 0.0


@dataclass
class Comparison:
    """Policy against baseline. Its fields are its state.

    Attributes
    ----------
    policy, control : Side
        Rewards of either.
    seen, variance : int, float
        Differences that the noise was estimated from, and the variance of a reward.
    blocks : int
        Blocks closed since the stage began.
    better : LowerSequence
        Lower bounds of the difference.
    worse : list of float
        Evidence that it has become worse, by size of the bet.
    """

    policy: Side = field(default_factory=Side)
    control: Side = field(default_factory=Side)
    seen: int = 0
    variance: float = 0.0
    blocks: int = 0
    better: LowerSequence = field(default_factory=LowerSequence)
    worse: list[float] = field(default_factory=lambda: [0.0] * len(_BETS))

    def add(self, utility: float, of_policy: bool, *, span: float, tolerance: float, alpha: float) -> None:
        """Take a reward in.

        Parameters
        ----------
        utility : float
            What the decision earned.
        of_policy : bool
            Whether the policy or the baseline decided.
        span : float
            Largest difference of two utilities by quality alone.
        tolerance : float
            What is let pass, in standard deviations of a reward.
        alpha : float
            Level for which the lower bound is made.
        """
        side = self.policy if of_policy else self.control
        deviation = max(math.sqrt(self.variance), _QUIETEST * span)  # rewards may be free of noise
        warm = self.seen >= WARM_UP and deviation > 0.0
        self._estimate_noise(side, utility, warm * max(_OUTLIER * deviation, span))
        side.n += 1
        side.mean += (utility - side.mean) / side.n
        side.block_n += 1
        side.block_sum += utility
        if not (self.policy.block_n and self.control.block_n):
            return
        n_policy, n_control = self.policy.block_n, self.control.block_n
        difference = self.policy.block_sum / n_policy - self.control.block_sum / n_control
        self._close_block()
        if not warm:
            return
        self.blocks += 1
        error = deviation * math.sqrt(1.0 / n_policy + 1.0 / n_control)
        self.better.add(difference, max(span, _BETTER_CUT * error), alpha)
        loss = min((-difference - tolerance * deviation) / (_WORSE_CUT * error), 1.0)
        self.worse = [(had + 1.0) * max(1.0 + bet * loss, 0.0) for had, bet in zip(self.worse, _BETS, strict=True)]

    @property
    def worse_evidence(self) -> float:
        """Evidence that the policy is worse: on the mean as many blocks pass before it gets that high by chance."""
        return sum(self.worse) / len(self.worse)

    @property
    def deviation(self) -> float:
        """Standard deviation of a reward."""
        return math.sqrt(self.variance)

    def begin_stage(self, *, anew: bool) -> None:
        """Another share from now on: rewards are counted afresh, and, `anew`, nothing is held to be known of the difference."""
        self.policy, self.control = Side(), Side()
        self.blocks = 0
        self.worse = [0.0] * len(_BETS)
        if anew:
            self.better = LowerSequence()

    def _estimate_noise(self, side: Side, utility: float, limit: float) -> None:
        """From differences of neighbours: a mean that moves, as that of a policy turning bad, is no noise."""
        last, side.last = side.last, utility
        if last is None:
            return
        off = (utility - last) * math.sqrt(0.5)
        if limit:
            off = min(max(off, -limit), limit)
        self.seen += 1
        self.variance += (off * off - self.variance) / min(self.seen, _MEMORY)

    def _close_block(self) -> None:
        for side in (self.policy, self.control):
            side.block_n, side.block_sum = 0, 0.0

    def to_json(self) -> dict[str, Any]:
        """Its state, for JSON."""
        return {
            "policy": vars(self.policy),
            "control": vars(self.control),
            "seen": self.seen,
            "variance": self.variance,
            "blocks": self.blocks,
            "better": vars(self.better),
            "worse": self.worse,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Comparison:
        """Inverse of `to_json`."""
        return cls(
            Side(**state["policy"]),
            Side(**state["control"]),
            state["seen"],
            state["variance"],
            state["blocks"],
            LowerSequence.of(state["better"]),
            list(state["worse"]),
        )
