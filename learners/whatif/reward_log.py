"""The rewards of one policy as they were logged, in the order in which they became known. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.spec import PolicySpec

Float = NDArray[np.float64]

_DRAWN = ("LIVE", "CANARY", "SHADOW")


class Rewarded(NamedTuple):
    """One reward; units as in the reward contract."""

    ts: int
    decided_at: int
    decision_id: str
    arm: int
    propensity: float
    mode: str
    features: NDArray[np.float32]
    eligible: tuple[int, ...]
    quality: float | None
    defaulted: bool
    cost_micro_usd: float
    latency_us: float
    failures: float
    source: str | None
    peers: str
    tool_calls: float = 0.0

    @property
    def drawn(self) -> bool:
        """Whether it can answer for other arms: its arm was drawn, with a probability below 1."""
        return self.mode in _DRAWN and 0.0 < self.propensity < 1.0


@dataclass(frozen=True, eq=False)
class Log:
    """What there is to replay.

    Attributes
    ----------
    rewards : list of Rewarded
        By the time at which they closed.
    epoch : int or None
        The epoch that decided; None when no reward names one.
    left_out : Counter of str
        Rewards not looked at, by reason, in words.
    """

    rewards: list[Rewarded]
    epoch: int | None
    left_out: Counter[str]


class LogReader:
    """Takes the records of the reward topic, in the order of their log.

    Parameters
    ----------
    ran : PolicySpec
        What decided.
    since_us, until_us : int, optional
        Decisions made from then on and before then; microseconds since 1970-01-01 UTC.

    Attributes
    ----------
    read : int
        Records of the policy seen.
    """

    def __init__(self, ran: PolicySpec, since_us: int | None = None, until_us: int | None = None) -> None:
        self.read = 0
        self._ran = ran
        self._since = -math.inf if since_us is None else since_us
        self._until = math.inf if until_us is None else until_us
        self._places: dict[int, tuple[int, int]] = {}
        self._by_epoch: dict[int | None, list[Rewarded]] = {}
        self._left_out: Counter[str] = Counter()

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a decoded reward record; another policy's is passed over."""
        ran = self._ran
        if (record["tenant"], record["policy"]) != (ran.tenant, ran.name):
            return
        self.read += 1
        reason = self._unfit(record)
        if reason:
            self._left_out[reason] += 1
            return
        self._by_epoch.setdefault(record["policy_epoch"], []).append(
            Rewarded(
                int(record["ts"]), int(record["decided_at"]), record["decision_id"], ran.arms.index(record["arm"]),
                float(record["propensity"]), record["mode"], np.asarray(record["features"], dtype=np.float32),
                tuple(record["eligible"]), record["quality"], record["quality_defaulted"], float(record["cost_micro_usd"]),
                float(record["latency_us"]), float(record["failures"]), record.get("source"), record.get("peers", ""),
                float(record.get("tool_calls", 0)),
            )
        )  # fmt: skip

    def _unfit(self, record: Mapping[str, Any]) -> str:
        partition, place = record["source_partition"], (record["source_offset"], record["seq"])
        if partition >= 0:
            if place <= self._places.get(partition, (-1, -1)):
                return "repeats"
            self._places[partition] = place
        if not self._since <= record["decided_at"] < self._until:
            return "outside the time asked for"
        if record["reward_spec"] != self._ran.reward_hash:
            return "of another definition of the reward"
        if not len(record["features"]):
            return "decided without a policy (fallback)"
        x = np.asarray(record["features"], dtype=np.float64)
        if len(x) != self._ran.features.dim or x[-1] != 1.0 or not np.isfinite(x).all():
            return "with a context of another form"
        if record["arm"] not in self._ran.arms:
            return "of an arm that the policy does not have"
        if any(not 0 <= i < len(self._ran.arms) for i in record["eligible"]):
            return "of an arm that the policy does not have"
        numbers = [record[name] for name in ("cost_micro_usd", "latency_us", "failures", "propensity")]
        if not all(map(math.isfinite, numbers)) or not math.isfinite(record["quality"] or 0.0):
            return "with numbers that are not finite"
        return ""

    def finish(self) -> Log:
        """What was read: the rewards of the newest epoch, and those that name none."""
        epoch = max((e for e in self._by_epoch if e is not None), default=None)
        rewards: list[Rewarded] = []
        for of, some in self._by_epoch.items():
            if of == epoch or of is None:
                rewards += some
            else:
                self._left_out["of earlier epochs, whose arms or features were others"] += len(some)
        rewards.sort(key=lambda reward: reward.ts)
        return Log(rewards, epoch, self._left_out)
