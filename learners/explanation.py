"""A decision explained from what was published: which snapshot made it, its draw computed again, and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from steersman.errors import SteersmanError
from steersman.held import Held
from steersman.snapshot import PolicySnapshot

from .chance import Chance, chance
from .why import Why, explain


@dataclass(frozen=True)
class Decided:
    """What was logged of a decision, as far as explaining it needs.

    Attributes
    ----------
    features : tuple of float
        x as logged, (d,).
    eligible : tuple of int
        Indices of the arms that were eligible; empty for all.
    arm, mode, trace_id : str
        What was taken, in which mode, and in which trace.
    propensity : float
        As logged.
    at_us : int
        When it was decided; unit: microseconds since 1970-01-01 UTC.
    """

    features: tuple[float, ...]
    eligible: tuple[int, ...]
    arm: str
    mode: str
    trace_id: str
    propensity: float
    at_us: int

    @classmethod
    def of(cls, row: Mapping[str, Any], at: str) -> Self:
        """From a row of a view, whose time of the decision is in this column."""
        return cls(
            tuple(row["features"]), tuple(row["eligible"]), row["arm"], row["mode"], row["trace_id"], row["propensity"],
            round(row[at].timestamp() * 1e6),
        )  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """Why a decision came out as it did.

    Attributes
    ----------
    snapshot : PolicySnapshot
        What it is explained with.
    chance : Chance
        Its draw under that snapshot, computed again.
    same : bool
        Whether the probability comes out as logged.
    why : tuple of Why
        What each feature adds to each component; empty for an arm that the snapshot does not have.
    """

    snapshot: PolicySnapshot
    chance: Chance
    same: bool
    why: tuple[Why, ...]


def explained(published: Sequence[Held], decided: Decided) -> Explanation:
    """Explain a decision by one of the snapshots that were published under its version.

    An act may publish a version again, with other weights or in another stage: the one is taken whose probability is the one
    that was logged, else the last that had been published by then.

    Parameters
    ----------
    published : sequence of Held
        The candidates.
    decided : Decided

    Raises
    ------
    SteersmanError
        When none can be used for the decision; says why.
    """
    tried: list[tuple[Held, Chance]] = []
    problem = "no usable snapshot of its version"
    for held in published:
        try:
            made = chance(
                held,
                decided.features,
                decided.eligible,
                decided.arm,
                decided.mode,
                decided.trace_id,
                decided.propensity,
            )
        except (ValueError, IndexError) as error:
            problem = str(error)
            continue
        tried.append((held, made))
    if not tried:
        raise SteersmanError(f"the decision cannot be explained from what was published: {problem}")

    def fits(pair: tuple[Held, Chance]) -> tuple[bool, bool, int]:
        created = pair[0].snapshot.created_at
        return pair[1].agrees(decided.propensity), created <= decided.at_us, created

    used, made = max(tried, key=fits)
    snapshot = used.snapshot
    why = tuple(explain(used, list(decided.features), decided.arm)) if decided.arm in snapshot.arms else ()
    return Explanation(snapshot, made, made.agrees(decided.propensity), why)
