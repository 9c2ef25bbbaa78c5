"""A hot policy learned in shards: each learns from source partitions of its own, and their statistics add up. Pure.

Shard k of N learns the rewards whose source partition is k modulo N, so the order within a source partition, on which
provenance rests, is kept, and no two shards read the same one. Statistics of a shard are its learner's state: sums,
counters and provenance, with a digest. The sum of all shards in their order is the policy, and the same statistics give
the same bytes whoever adds them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from .protocol import Learner
from .registry import make_learner, restore_learner
from .shard_keys import shard_of
from .spec import PolicySpec
from .state import Origin

Vector = Mapping[int, tuple[int, int]]
"""Source partition -> (source_offset, seq)."""


def own_sources(vector: Vector, shard: int, shards: int) -> dict[int, tuple[int, int]]:
    """The part of a provenance vector that is a shard's."""
    return {partition: place for partition, place in vector.items() if shard_of(partition, shards) == shard}


@dataclass(frozen=True)
class Statistics:
    """What a shard has published of itself.

    Attributes
    ----------
    origin : Origin
        Whose they are, and which rewards made them.
    state : bytes
        The shard's learner, as its ``to_state`` made it.
    """

    origin: Origin
    state: bytes

    @classmethod
    def of(cls, state: bytes) -> Self:
        """Read them; StateError when the bytes are damaged."""
        return cls(Origin.of(state), state)

    @property
    def rank(self) -> tuple[int, int]:
        """Order of what one shard publishes."""
        return self.origin.epoch, self.origin.version

    def follows(self, other: Statistics | None) -> bool:
        """Whether a shard that had published `other` can have gone on to these."""
        if other is None or self.rank != other.rank:
            return other is None or self.rank > other.rank
        held = self.origin.sources
        return all(held.get(partition, (-1, -1)) >= place for partition, place in other.origin.sources.items())


ByShard = Mapping[tuple[str, str], Statistics]
"""Shard key and lineage -> its newest statistics."""

NO_STATISTICS: ByShard = MappingProxyType({})
"""Nothing published."""


def merge_shards(spec: PolicySpec, epoch: int, states: Mapping[int, bytes]) -> Learner:
    """Add shards up, in the order of their numbers: equal states give equal bytes.

    Parameters
    ----------
    spec : PolicySpec
    epoch : int
        Of all the states.
    states : mapping of int to bytes
        Shard -> state of its learner; those that are missing have learned nothing.

    Raises
    ------
    learners.state.StateError
        When a state is damaged or another policy's.
    ValueError
        When one is of another lineage or epoch, or two have read the same source partition.
    """
    if spec.shards == 1 and len(states) == 1:
        return restore_learner(spec, states[0])  # with all that it keeps beside its sums
    whole = make_learner(spec, epoch)
    for shard in sorted(states):
        whole.merge(restore_learner(spec, states[shard]))
    return whole
