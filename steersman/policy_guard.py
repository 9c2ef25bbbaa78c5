"""What a service does not let a policy do to it, whoever signed it.

A signature says who made a policy, not that it is a good one. Behind it, each service can bound what it will follow;
what does not pass leaves the last good policy in place. That a policy's numbers are finite, its tensors of the right
shape and its bytes no more than a message's is checked for every policy when it is read (`steersman.codec`, `steersman.snapshot`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steersman.arms import Level, same_level
from steersman.errors import ConfigError, SteersmanError
from steersman.held import Held

Levels = Mapping[str, Collection[Level]]
"""Knob -> the levels that it may take."""

_FOLLOWED = frozenset({"LIVE", "CANARY", "FROZEN"})


class Refused(SteersmanError):
    """A policy that this service does not follow.

    Parameters
    ----------
    reason : str
        ``expired``, ``arms``, ``floor``, ``probabilities`` or ``step``.
    detail : str
        What exactly was wrong with it.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class PolicyGuard:
    """The bounds of a service.

    Parameters
    ----------
    allowed : mapping of str to mapping, optional
        Policy -> knob -> levels. A policy may have no other knob and no other level, so it can never bring in a model
        or a tool that the service did not name; a policy that is not listed is refused. No restriction by default.
    min_floor : float
        Least exploration floor (`steersman.snapshot.PolicySnapshot.floor`), 0 to 1: no arm can be starved of trials.
    max_step : float, optional
        Largest total variation distance, 0 to 1, between the choices of the policy held and of a new one of the same
        epoch, at the average context: half the sum of the differences of the arms' probabilities. None for no limit.
        A policy in shadow is always let pass: it leaves all to the baseline.

    Raises
    ------
    ConfigError
        When a bound is not within 0 to 1.
    """

    allowed: Mapping[str, Levels] | None = None
    min_floor: float = 0.0
    max_step: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_floor <= 1.0:
            raise ConfigError(f"min_floor must be within 0 and 1, not {self.min_floor!r}")
        if self.max_step is not None and not 0.0 < self.max_step <= 1.0:
            raise ConfigError(f"max_step must be above 0 and at most 1, not {self.max_step!r}")

    def check(self, new: Held, held: Held | None, now_us: int) -> None:
        """Let a policy pass, or raise `Refused`.

        Parameters
        ----------
        new, held : Held
            The policy that has come, and the one in use.
        now_us : int
            The time; unit: microseconds since 1970-01-01 UTC.
        """
        snapshot = new.snapshot
        if snapshot.stage == "RETIRED":
            return  # makes agents use their baseline, which is theirs: nothing to guard against
        if snapshot.not_after is not None and now_us > snapshot.not_after:
            raise Refused("expired", f"{snapshot.key} was not to be used after {snapshot.not_after}, it is {now_us}")
        self._check_arms(new)
        if snapshot.floor < self.min_floor:
            raise Refused("floor", f"{snapshot.key} has the floor {snapshot.floor}, at least {self.min_floor} is asked")
        _check_probabilities(new)
        taken_back = snapshot.stage == "SHADOW"  # a rollback must not wait
        if self.max_step is not None and held is not None and held.snapshot.epoch == snapshot.epoch and not taken_back:
            step = step_between(held, new)
            if step > self.max_step:
                raise Refused(
                    "step", f"{snapshot.key} v{snapshot.version} moves by {step:.3f}, {self.max_step} is allowed"
                )

    def _check_arms(self, new: Held) -> None:
        if self.allowed is None:
            return
        snapshot = new.snapshot
        levels = self.allowed.get(snapshot.policy)
        if levels is None:
            raise Refused("arms", f"this service allows no arms to a policy {snapshot.policy}")
        for knob, offered in snapshot.arms.knobs.items():
            known = levels.get(knob, ())
            for level in offered:
                if not any(same_level(level, one) for one in known):
                    raise Refused("arms", f"{snapshot.key} has {knob}={level!r}, which this service does not allow")


def _check_probabilities(new: Held) -> None:
    """Weights may be finite and yet too large to decide by."""
    with np.errstate(all="ignore"):
        chances = new.scorer.score(new.snapshot.features.encode({})).propensity
    least = new.snapshot.floor / len(chances) - 1e-9
    if not np.isfinite(chances).all() or abs(float(chances.sum()) - 1.0) > 1e-6 or float(chances.min()) < least:
        raise Refused("probabilities", f"{new.snapshot.key} v{new.snapshot.version} makes no probabilities of its arms")


def step_between(held: Held, new: Held) -> float:
    """Total variation distance of two policies' choices at the average context, 0 to 1.

    Policies that are not followed (shadow, retired) count as their baseline; of arms that only one of them has, the
    other's probability is zero.
    """
    one, other = _choices(held), _choices(new)
    return 0.5 * sum(abs(one.get(label, 0.0) - other.get(label, 0.0)) for label in one.keys() | other.keys())


def _choices(policy: Held) -> dict[str, float]:
    """Probability of each arm at the average context, by label."""
    snapshot = policy.snapshot
    labels = snapshot.arms.labels
    if snapshot.stage not in _FOLLOWED:
        return {labels[policy.baseline]: 1.0}
    chances: NDArray[np.float64] = np.asarray(
        policy.scorer.score(snapshot.features.encode({})).propensity, dtype=np.float64
    )
    chances = chances * snapshot.canary_share  # 1 but in canary, and under a guard that keeps a control group
    chances[policy.baseline] += 1.0 - snapshot.canary_share
    return dict(zip(labels, chances.tolist(), strict=True))
