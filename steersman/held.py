"""Policies as a process holds them, ready to be asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from steersman.arms import ArmSpace, Level
from steersman.clock import SYSTEM_CLOCK, Clock
from steersman.scoring import Scorer
from steersman.snapshot import PolicySnapshot

Eligible = Mapping[str, Collection[Level]] | Collection[str] | None


class UnknownArm(LookupError):
    """What is eligible names a label, knob or level that the policy does not have."""


class ArmMasks:
    """Turns what a caller allows into a mask over a policy's arms.

    Parameters
    ----------
    arms : ArmSpace
        The policy's arms; the masks of single levels are made once, here.
    """

    __slots__ = ("_arms", "_of_level")

    def __init__(self, arms: ArmSpace) -> None:
        self._arms = arms
        self._of_level: dict[str, dict[tuple[bool, Level], NDArray[np.bool_]]] = {
            knob: {_key(level): np.asarray(arms.levels[:, column] == i, dtype=bool) for i, level in enumerate(levels)}
            for column, (knob, levels) in enumerate(arms.knobs.items())
        }

    def mask(self, eligible: Eligible, *, strict: bool = True) -> NDArray[np.bool_] | None:
        """Mask (K,) of the arms allowed; None when all are.

        Parameters
        ----------
        eligible : mapping, collection or None
            Allowed levels per knob (a knob not named is free), or allowed labels, or no restriction.
        strict : bool
            Whether to raise for names that the policy does not have; otherwise they allow nothing.

        Raises
        ------
        UnknownArm
            Only when `strict`.
        """
        if eligible is None:
            return None
        if isinstance(eligible, Mapping):
            return self._by_level(eligible, strict) if eligible else None
        mask = np.zeros(len(self._arms), dtype=bool)
        for label in (eligible,) if isinstance(eligible, str) else eligible:
            try:
                mask[self._arms.index(label)] = True
            except (ValueError, TypeError):
                if strict:
                    raise UnknownArm(f"label {label!r}") from None
        return mask

    def _by_level(self, eligible: Mapping[str, Collection[Level]], strict: bool) -> NDArray[np.bool_]:
        whole: NDArray[np.bool_] | None = None
        for knob, levels in eligible.items():
            known = self._of_level.get(knob)
            if known is None:
                if strict:
                    raise UnknownArm(f"knob {knob!r}")
                continue
            allowed: NDArray[np.bool_] | None = None
            for level in as_levels(levels):
                arms = known.get(_key(level))
                if arms is not None:
                    allowed = arms if allowed is None else allowed | arms
                elif strict:
                    raise UnknownArm(f"level {level!r} of knob {knob!r}")
            if allowed is None:
                return np.zeros(len(self._arms), dtype=bool)
            whole = allowed if whole is None else whole & allowed
        return np.ones(len(self._arms), dtype=bool) if whole is None else whole


def as_levels(levels: Collection[Level] | Level) -> Collection[Level]:
    """The allowed levels, where a single one may stand for a collection of one."""
    return (levels,) if isinstance(levels, str | bool | int | float) else levels


def _key(level: Level) -> tuple[bool, Level]:
    """Dictionary key under which 1 is not True."""
    return isinstance(level, bool), level


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A policy snapshot with everything made ready that deciding needs.

    Attributes
    ----------
    snapshot : PolicySnapshot
        As published.
    scorer : Scorer
        Its arithmetic.
    received_us : int
        When it came, in microseconds since 1970-01-01 UTC; for one read from disk, when it was last known current.
    masks : ArmMasks
        Masks over its arms.
    baseline : int
        Index of its baseline arm.
    """

    snapshot: PolicySnapshot
    scorer: Scorer
    received_us: int
    masks: ArmMasks = field(init=False)
    baseline: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "masks", ArmMasks(self.snapshot.arms))
        object.__setattr__(self, "baseline", self.snapshot.arms.index(self.snapshot.baseline))

    @property
    def rank(self) -> tuple[int, int, int]:
        """Order of snapshots of a policy: epoch, version, and of one version the time it was made.

        The time decides where a command changed only the stage: that applies no reward, so the version stays.
        """
        return self.snapshot.epoch, self.snapshot.version, self.snapshot.created_at


class PolicySource(Protocol):
    """Where a router finds policies; `PolicySubscriber` is one, `StaticPolicies` another."""

    def get(self, policy: str) -> Held | None:
        """The policy as last known, or None."""
        ...

    def age_s(self, policy: str) -> float | None:
        """Seconds since the policy was last known to be the current one; None when there is none."""
        ...


class StaticPolicies:
    """Policies that are simply there: for tests, simulations and offline use.

    Parameters
    ----------
    snapshots : iterable of PolicySnapshot
        One per policy; of two with the same name the later counts.
    clock : Clock
        Source of time.
    """

    def __init__(self, snapshots: Iterable[PolicySnapshot] = (), *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._held: dict[str, Held] = {}
        for snapshot in snapshots:
            self.put(snapshot)

    def put(self, snapshot: PolicySnapshot) -> None:
        """Add or replace a policy."""
        self._held[snapshot.policy] = Held(snapshot, Scorer(snapshot), self._clock.now_us())

    def get(self, policy: str) -> Held | None:
        """The policy, or None."""
        return self._held.get(policy)

    def age_s(self, policy: str) -> float | None:
        """Seconds since the policy was put here; None when it was not."""
        held = self._held.get(policy)
        return None if held is None else (self._clock.now_us() - held.received_us) / 1e6
