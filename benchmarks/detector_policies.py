"""Labelled reward streams for the detectors of policies: some show a failure, benign ones look much like it.

Drawn as `benchmarks.detector_traces` draws traces: at random within the bounds of a description, thresholds set on other seeds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class PolicyCase:
    """The rewards of one policy.

    Attributes
    ----------
    label, looks_like, what
        As of `benchmarks.detector_traces.TraceCase`.
    begins
        Index of the reward at which the failure begins: alerts before are false.
    rewards
        What a policy's detectors look at, in order.
    """

    label: str
    looks_like: str
    what: str
    begins: int
    rewards: list[dict[str, Any]]


class Stream:
    """Writes the rewards of one policy.

    Parameters
    ----------
    rng
        Draws everything.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.arms = [f"model={name}" for name in ("small", "medium", "large", "huge")[: rng.randrange(2, 5)]]
        self.mean = {arm: rng.uniform(0.5, 0.9) for arm in self.arms}
        self.cost = {arm: rng.uniform(500, 30_000) for arm in self.arms}
        self.latency = {arm: rng.uniform(2e5, 8e6) for arm in self.arms}
        self.noise, self.tail = rng.uniform(0.05, 0.25), rng.uniform(0.1, 0.8)
        self.rewards: list[dict[str, Any]] = []

    @property
    def best(self) -> str:
        """Arm of the highest mean."""
        return max(self.arms, key=lambda arm: self.mean[arm])

    def add(
        self, arm: str, propensity: float, *, fill: float | None = None, effect: float = 0.0, **fields: Any
    ) -> None:
        """Write a reward of an arm; `effect` is added to its quality."""
        rng, number = self.rng, len(self.rewards)
        quality = self.mean[arm] + effect + rng.gauss(0, self.noise)
        self.rewards.append(
            {
                "tenant": "default", "policy": "case", "agent": "planner", "trace_id": f"{number + 1:032x}",
                "decision_id": f"{number}", "ts": 1_790_000_000_000_000 + number * 1_000_000, "arm": arm, "propensity": propensity, "mode": "LIVE",
                "eligible": [], "quality": quality, "quality_defaulted": False, "utility": quality,
                "cost_micro_usd": int(self.cost[arm] * math.exp(rng.gauss(0, self.tail))),
                "latency_us": int(self.latency[arm] * math.exp(rng.gauss(0, self.tail))),
                "context_fill": rng.uniform(0.05, 0.95) if fill is None else fill, **fields,
            }
        )  # fmt: skip

    def even(self, count: int) -> None:
        """Write rewards of a policy that tries all arms alike."""
        for _ in range(count):
            self.add(self.rng.choice(self.arms), 1 / len(self.arms))

    def mostly(self, arm: str, count: int, floor: float) -> None:
        """Write rewards of a policy that keeps to an arm, above a floor of exploration."""
        share = floor / len(self.arms)
        for _ in range(count):
            chosen = self.rng.choice(self.arms) if self.rng.random() < floor else arm
            self.add(chosen, 1 - floor + share if chosen == arm else share)


PolicyPlay = Callable[[Stream], int]
"""Writes a case; returns the index at which its failure begins."""


def _shift(s: Stream) -> int:
    per_arm = s.rng.randrange(80, 300)
    s.even(per_arm * len(s.arms))
    arm, signal = s.rng.choice(s.arms), s.rng.choice(("utility", "cost", "latency"))
    factor = math.exp(s.rng.uniform(1.5, 3.0) * s.tail * s.rng.choice((-1, 1)))
    if signal == "utility":
        s.mean[arm] -= s.rng.uniform(1.5, 3.0) * s.noise
    elif signal == "cost":
        s.cost[arm] *= factor
    else:
        s.latency[arm] *= factor
    begins = len(s.rewards)
    s.even(150 * len(s.arms))
    return begins


def _steady(s: Stream) -> int:
    s.even(s.rng.randrange(500, 1500))
    return 0


def _other_shares(s: Stream) -> int:
    s.even(400)
    s.mostly(s.best, 200, 0.5)
    s.even(400)
    return 0


def _outliers(s: Stream) -> int:
    for _ in range(10):
        s.even(80)
        for _ in range(s.rng.randrange(1, 4)):
            s.add(s.rng.choice(s.arms), 1 / len(s.arms), effect=-5.0)
    return 0


def _hardly(s: Stream) -> int:
    s.even(400)
    for arm in s.arms:
        s.mean[arm] -= 0.15 * s.noise
        s.cost[arm] *= math.exp(0.15 * s.tail)
    s.even(600)
    return 0


def _degrades(s: Stream) -> int:
    loss, knee = s.rng.uniform(0.35, 0.8), s.rng.uniform(0.4, 0.6)
    for _ in range(s.rng.randrange(700, 1200)):
        fill = s.rng.uniform(0.05, 1.0)
        s.add(s.rng.choice(s.arms), 1 / len(s.arms), fill=fill, effect=-loss * max(0.0, fill - knee) / (1 - knee))
    return 0


def _long_and_fine(s: Stream) -> int:
    for _ in range(s.rng.randrange(700, 1200)):
        s.add(s.rng.choice(s.arms), 1 / len(s.arms), fill=s.rng.uniform(0.6, 1.0) if s.rng.random() < 0.7 else 0.2)
    return 0


def _fills_up(s: Stream) -> int:
    count = s.rng.randrange(700, 1200)
    for number in range(count):
        s.add(s.rng.choice(s.arms), 1 / len(s.arms), fill=min(1.0, max(0.0, s.rng.gauss(number / count, 0.1))))
    return 0


def _a_little_worse(s: Stream) -> int:
    for _ in range(s.rng.randrange(700, 1200)):
        fill = s.rng.uniform(0.05, 1.0)
        s.add(s.rng.choice(s.arms), 1 / len(s.arms), fill=fill, effect=-0.04 * fill)
    return 0


def _starves(s: Stream) -> int:
    s.even(s.rng.randrange(100, 400))
    begins = len(s.rewards)
    arm = s.rng.choice(s.arms)
    for _ in range(400):
        s.add(arm, 1.0 - s.rng.uniform(0, 1e-4))
    return begins


def _takes_all_though_worse(s: Stream) -> int:
    worst = min(s.arms, key=lambda arm: s.mean[arm])
    s.mean[worst] = s.mean[s.best] - s.rng.uniform(0.8, 2.0) * s.noise
    s.even(s.rng.randrange(60, 150) * len(s.arms))
    begins = len(s.rewards)
    s.mostly(worst, 500, 0.02)
    return begins


def _found_the_best(s: Stream) -> int:
    s.even(s.rng.randrange(100, 600))
    s.mostly(s.best, 800, 0.02)
    return 0


def _no_choice(s: Stream) -> int:
    s.even(300)
    for _ in range(300):
        s.add(s.arms[0], 1.0, eligible=[0])
        s.add(s.arms[0], 1.0, mode="FALLBACK")
        s.add(s.rng.choice(s.arms), 1 / len(s.arms))
    return 0


def _level(s: Stream) -> int:
    for arm in s.arms:
        s.mean[arm] = 0.7
    s.even(300)
    s.mostly(s.rng.choice(s.arms), 800, 0.02)
    return 0


POLICY_CASES: dict[str, tuple[Sequence[PolicyPlay], Sequence[PolicyPlay]]] = {
    "behaviour_drift": ((_shift,), (_steady, _other_shares, _outliers, _hardly)),
    "context_degradation": ((_degrades,), (_long_and_fine, _fills_up, _a_little_worse)),
    "feedback_collapse": ((_starves, _takes_all_though_worse), (_found_the_best, _no_choice, _level)),
}
"""By detector: what shows the failure, and what only looks like it."""


def policy_case(rng: random.Random, detector: str, *, positive: bool) -> PolicyCase:
    """Draw the rewards of a policy for a detector."""
    play = rng.choice(POLICY_CASES[detector][0 if positive else 1])
    stream = Stream(rng)
    begins = play(stream)
    return PolicyCase(detector if positive else "", detector, play.__name__.strip("_"), begins, stream.rewards)


def policy_cases(seed: int, count: int) -> Iterator[PolicyCase]:
    """Draw so many policies for each detector, about half of them benign."""
    rng = random.Random(seed)  # noqa: S311 - cases, not secrets
    for _ in range(count):
        for detector in POLICY_CASES:
            yield policy_case(rng, detector, positive=rng.random() < 0.5)
