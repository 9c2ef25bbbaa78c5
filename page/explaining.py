"""Why decisions came out as they did, for the view of a trace: with the records that ClickHouse keeps, as `steersman policy explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from learners.explanation import Decided, Explanation, explained
from learners.why import Why
from page.history import Version
from page.store import Row, Store
from sinks.published import NEIGHBOURS, RECORDS, published_of, usable
from steersman.errors import SteersmanError
from steersman.held import Held, PolicySource

MOST: Final = 24
"""Decisions of a trace that are explained at once: each may rest on a version of its own, which is read and decoded."""
_MOST_ARMS: Final = 12


@dataclass(frozen=True)
class Arm:
    """An arm that was eligible, with its probability and expected utility; `taken` for the one of the decision."""

    label: str
    probability: float
    utility: float
    taken: bool


@dataclass(frozen=True)
class Told:
    """What the view says of a decision.

    Attributes
    ----------
    note : str
        Whose weights these are, or why there are none.
    good : bool
        False where the probability does not come out as logged although the version is the one that decided.
    draw : str
        How it was drawn, and what comes out when the probability is computed again.
    arms : list of Arm
        The likeliest, the one taken among them; `more` is how many others there are.
    more : int
        See `arms`.
    parts : tuple of Why
        Features times weights, by component.
    """

    note: str
    good: bool = True
    draw: str = ""
    arms: list[Arm] = field(default_factory=list)
    more: int = 0
    parts: tuple[Why, ...] = ()


class Explainer:
    """Explains decisions. Blocks; for one thread at a time, as its store.

    Parameters
    ----------
    store : Store
        Where records are kept.
    policies : PolicySource or None
        Newest snapshots, for what is not kept yet; None for none.
    """

    def __init__(self, store: Store, policies: PolicySource | None) -> None:
        self._store, self._policies = store, policies

    def explain(self, decisions: Sequence[Row]) -> list[Told]:
        """Explain the first `MOST` of the decisions of a trace; Trouble when ClickHouse does not answer.

        Parameters
        ----------
        decisions
            Rows of `page.store.EVENTS`.
        """
        known: dict[tuple[str, Version], list[Held]] = {}
        return [self._explain(row, known) for row in decisions[:MOST]] + [
            Told(f"Only the first {MOST} decisions are explained here; of this one {_command(row)}.")
            for row in decisions[MOST:]
        ]

    def _explain(self, row: Row, known: dict[tuple[str, Version], list[Held]]) -> Told:
        if row["policy_version"] is None:
            return Told(f"No weights were involved: no snapshot was followed ({row['reason'] or 'no policy'}).")
        policy, at = row["policy"], (row["policy_epoch"], row["policy_version"])
        for version in (at, *self._substitutes(policy, at, known)):
            held = self._published(policy, version, known)
            if not held:
                continue
            try:
                return _told(row, at, version, explained(held, Decided.of(row, "ts")))
            except SteersmanError as error:
                return Told(f"No weights: {error}")
        return Told(self._nothing(policy, at))

    def _published(self, policy: str, at: Version, known: dict[tuple[str, Version], list[Held]]) -> list[Held]:
        """What is at hand of a version: kept in ClickHouse, or else the newest of the policy topic, if it is that."""
        if (policy, at) not in known:
            rows = self._store.rows(RECORDS, policy=policy, epoch=at[0], version=at[1])
            found = usable(published_of(row["record_base64"] for row in rows))
            newest = None if found or self._policies is None else self._policies.get(policy)
            if newest is not None and (newest.snapshot.epoch, newest.snapshot.version) == at:
                found = [newest]
            known[policy, at] = found
        return known[policy, at]

    def _substitutes(self, policy: str, at: Version, known: dict[tuple[str, Version], list[Held]]) -> list[Version]:
        """Versions of the same epoch to fall back to, nearest first; none where the version itself is at hand."""
        if self._published(policy, at, known):
            return []
        rows = self._store.rows(NEIGHBOURS, policy=policy, epoch=at[0], version=at[1])
        found = [(row["epoch"], row["version"]) for row in rows if row["epoch"] == at[0]]
        newest = None if self._policies is None else self._policies.get(policy)
        if newest is not None and newest.snapshot.epoch == at[0]:
            found.append((newest.snapshot.epoch, newest.snapshot.version))
        return sorted(set(found), key=lambda one: abs(one[1] - at[1]))

    def _nothing(self, policy: str, at: Version) -> str:
        newest = None if self._policies is None else self._policies.get(policy)
        if newest is None:
            return "No weights: none of this epoch is kept, and this page has not received a snapshot of the policy from Kafka."
        return f"No weights: none of epoch {at[0]} is kept, and the policy is in epoch {newest.snapshot.epoch} by now."


def _told(row: Row, at: Version, used: Version, one: Explanation) -> Told:
    exact = used == at
    name = f"{used[0]}.{used[1]}"
    if exact:
        note = f"Weights of version {name}, which decided."
    else:
        note = f"Weights of version {name}, the nearest at hand; it was decided with {at[0]}.{at[1]}, and of that {_command(row)}."
    made = one.chance
    again = f"probability logged {row['propensity']:.6g}, computed again {made.propensity:.6g}"
    verdict = "the same" if one.same else "not the same" if exact else "another version's"
    order = sorted(range(len(made.arms)), key=lambda i: (made.arms[i] != row["arm"], -made.probabilities[i]))[
        :_MOST_ARMS
    ]
    arms = [Arm(made.arms[i], made.probabilities[i], made.utilities[i], made.arms[i] == row["arm"]) for i in order]
    return Told(
        note, one.same or not exact, f"{made.how}; {again}: {verdict}.",
        sorted(arms, key=lambda arm: -arm.probability), len(made.arms) - len(arms), one.why,
    )  # fmt: skip


def _command(row: Row) -> str:
    return f"'steersman policy explain {row['decision_id']}' tells more"
