"""Difference rewards: a decision's part in what the decisions of a trace achieved together.

The difference reward of a decision is G(z) - G(z with its arm replaced by its baseline), everybody else as they were
(D. H. Wolpert and K. Tumer, 2001, "Optimal payoff functions for members of collectives"; the expectation in place of the
second term, from a learned model, is the counterfactual baseline of J. Foerster et al., AAAI 2018). Its second term does not
depend on the decision's own arm, so whoever maximises it maximises G, and what the others did is no noise in it.

Here the model of G is the head itself, which sees the peers' levels beside the context and its own arm:

    G = shared . x  +  own(x, arm)  +  sum over the levels l of z_l (peers_l . x)  +  noise,

z_l = how often level l, which is not its policy's baseline, was taken in the trace. What a peer's level does depends on the context as
what an own level does (a small model costs little quality on a simple question), and it is believed as much: the same
prior (`learners.priors`). G - E[G | x, baseline arm, z] = own(x, arm) - own(x, baseline) + noise: fitting all of it at once is fitting
the difference rewards under a model that is always the newest (regression on residuals: the theorem of Frisch, Waugh and Lovell). So no
estimate gets into a reward, where it would stay as wrong as it was on that day; the sums stay exact, free of order and
mergeable; and a replay gives the same bits. Snapshots leave the peers out: they predict what happens when all of them take
their baselines, which moves all arms alike.

The context is the decision's own. What this model cannot take out is what a peer's choice does by what only the peer knows, and what
it does differently beside different arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steersman.arms import ArmSpace
from steersman.features import LIMIT, FeatureSpec

from .priors import Prior

MAX_LEVELS = 128
"""Levels of peers that a learner takes into account."""

MAX_BYTES = 2 << 20
"""Of the sums of all arms, with peers: as long as they are no more, all columns of x are crossed with the peers' levels; then the categorical
ones and the constant; else the constant alone."""


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
        return {"name": self.name, "baseline": self.baseline, "by": "context", **self.arms.to_record()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Peer) and self.to_record() == other.to_record()

    def __hash__(self) -> int:
        return hash((self.name, self.baseline, self.arms))


def peer_levels(peers: Sequence[Peer]) -> int:
    """How many levels they have that are not their baselines'."""
    return sum(peer.rows.shape[1] for peer in peers)


class PeerEncoder:
    """Makes the columns of the peers, float32 (P,), of a reward: each level's count times each crossed column of x, level by level.

    Parameters
    ----------
    peers : sequence of Peer
        In the order of their columns.
    features : FeatureSpec
        Of x.
    n_arms : int
        K, of the policy itself.

    Attributes
    ----------
    columns : int64 array (m,)
        Columns of x that are crossed with the levels, ascending; the last is the constant's.
    width : int
        P; 0 without peers.
    """

    def __init__(self, peers: Sequence[Peer], features: FeatureSpec, n_arms: int) -> None:
        levels = peer_levels(peers)
        self.columns = _crossed(levels, features, n_arms)
        self.width = levels * len(self.columns)
        self._kinds = [features.kinds[column] for column in self.columns]
        self._every = len(self.columns) == features.dim
        self._levels = levels
        self._lines: dict[str, NDArray[np.float32]] = {}
        at = 0
        for peer in peers:
            end = at + peer.rows.shape[1]
            for label, row in zip(peer.arms.labels, peer.rows, strict=True):
                line = np.zeros(levels, np.float32)
                line[at:end] = row
                self._lines[f"{peer.name} {label}"] = line
            at = end

    def precision(self, prior: Prior) -> NDArray[np.float64]:
        """Prior precisions of the peers' columns, float64 (P,): those of own levels."""
        return np.tile([prior.interactions[kind] for kind in self._kinds], self._levels)

    def counts(self, reward: Mapping[str, Any]) -> NDArray[np.float32]:
        """How often each level was taken, at most `LIMIT`; what is not known counts as a baseline, that is, as noise."""
        z = np.zeros(self._levels, np.float32)
        for line in reward.get("peers", "").split("\n"):
            found = self._lines.get(line)
            if found is not None:
                z += found
        return np.minimum(z, LIMIT, out=z)

    def encode(self, reward: Mapping[str, Any]) -> NDArray[np.float32]:
        """Columns of the peers of a reward record with features."""
        x = np.asarray(reward["features"], np.float32)
        return np.outer(self.counts(reward), x if self._every else x[self.columns]).ravel()

    def widen(self, reward: Mapping[str, Any]) -> Sequence[float]:
        """The peers' columns before x, as a learner takes them in; x alone without peers."""
        features: Sequence[float] = reward["features"]
        return [*self.encode(reward).tolist(), *features] if self.width else features


def _crossed(levels: int, features: FeatureSpec, n_arms: int) -> NDArray[np.int64]:
    """Columns of x that are crossed with so many levels of peers."""
    kinds = features.kinds
    every = range(len(kinds))
    for columns in (every, [i for i in every if kinds[i] in ("categorical", "constant")]):
        dim = levels * len(columns) + len(kinds)
        if n_arms * dim * (dim + 1) // 2 * 8 <= MAX_BYTES:
            return np.array(columns, np.int64)
    return np.array([len(kinds) - 1], np.int64)
