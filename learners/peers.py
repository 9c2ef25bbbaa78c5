"""Difference rewards: a decision's part in what the decisions of a trace achieved together.

The difference reward of a decision is G(z) - G(z with its arm replaced by its baseline), everybody else as they were
(D. H. Wolpert and K. Tumer, 2001, "Optimal payoff functions for members of collectives"; the expectation in place of the
second term, from a learned model, is the counterfactual baseline of J. Foerster et al., AAAI 2018). Its second term does not
depend on the decision's own arm, so whoever maximises it maximises G, and what the others did is no noise in it.

Here the model of G is the head itself, which sees the peers' levels beside the context and its own arm:

    G = shared . x  +  own(x, arm)  +  peers . z  + noise,     z = how often each level that is not its policy's baseline was taken

G - E[G | x, baseline arm, z] = own(x, arm) - own(x, baseline) + noise: fitting all of it at once is fitting the difference
rewards under a model that is always the newest (regression on residuals: the theorem of Frisch, Waugh and Lovell). So no
estimate gets into a reward, where it would stay as wrong as it was on that day; the sums stay exact, free of order and
mergeable; and a replay gives the same bits. Snapshots leave the peers out: they predict what happens when all of them take
their baselines, which moves all arms alike.

What this model cannot take out is what a peer's choice does differently in different contexts or beside different arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steersman.arms import ArmSpace
from steersman.features import LIMIT

PRECISION = 5.0
"""Prior precision of a peer's level, in events, for all heads. Of 1, 5 and 10, the best on seeds 1 to 3 of `benchmarks.credit`."""

MAX_COLUMNS = 128
"""Levels of peers that a learner takes into account."""


class Peer:
    """A policy whose decisions in the same trace are taken out of the account.

    Parameters
    ----------
    name : str
        Its name, without the tenant.
    arms : ArmSpace
    baseline : str
        Label of its baseline arm.
    """

    __slots__ = ("arms", "baseline", "name", "rows")

    def __init__(self, name: str, arms: ArmSpace, baseline: str) -> None:
        self.name, self.arms, self.baseline = name, arms, baseline
        base = arms.levels[arms.index(baseline)]
        columns = [
            arms.levels[:, knob] == level
            for knob, levels in enumerate(arms.knobs.values())
            for level in range(len(levels))
            if level != base[knob]
        ]
        self.rows: NDArray[np.float32] = np.array(columns, np.float32).reshape(len(columns), len(arms)).T
        """What arm a adds to z: float32 (K, columns)."""

    def to_record(self) -> dict[str, Any]:
        """What the meaning of the columns rests on."""
        return {"name": self.name, "baseline": self.baseline, **self.arms.to_record()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Peer) and self.to_record() == other.to_record()

    def __hash__(self) -> int:
        return hash((self.name, self.baseline, self.arms))


def peer_columns(peers: Sequence[Peer]) -> int:
    """How many columns they make."""
    return sum(peer.rows.shape[1] for peer in peers)


class PeerEncoder:
    """Makes z of a reward, float32 (P,).

    Parameters
    ----------
    peers : sequence of Peer
        In the order of their columns.

    Attributes
    ----------
    width : int
        P; 0 without peers.
    """

    def __init__(self, peers: Sequence[Peer]) -> None:
        self.width = peer_columns(peers)
        self._lines: dict[str, NDArray[np.float32]] = {}
        at = 0
        for peer in peers:
            end = at + peer.rows.shape[1]
            for label, row in zip(peer.arms.labels, peer.rows, strict=True):
                line = np.zeros(self.width, np.float32)
                line[at:end] = row
                self._lines[f"{peer.name} {label}"] = line
            at = end

    def encode(self, reward: Mapping[str, Any]) -> NDArray[np.float32]:
        """z of a reward record, entries at most `LIMIT`; what is not known counts as a baseline, that is, as noise."""
        z = np.zeros(self.width, np.float32)
        for line in reward.get("peers", "").split("\n"):
            found = self._lines.get(line)
            if found is not None:
                z += found
        return np.minimum(z, LIMIT, out=z)

    def widen(self, reward: Mapping[str, Any]) -> Sequence[float]:
        """z before x, as a learner takes them in; x alone without peers."""
        features: Sequence[float] = reward["features"]
        return [*self.encode(reward).tolist(), *features] if self.width else features
