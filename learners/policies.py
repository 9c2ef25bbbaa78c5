"""The policies that a system runs, by tenant and name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from .detector_settings import DetectorSettings
from .peers import Peer
from .spec import PolicySpec


class Policies:
    """The policies of a file, by tenant and name; iterates over them in file order.

    Raises
    ------
    ValueError
        When a policy names a peer that is not among them.
    """

    def __init__(
        self, specs: Mapping[str, PolicySpec] | None = None, detectors: DetectorSettings | None = None
    ) -> None:
        given = dict(specs or {})
        named = {f"{spec.tenant}/{peer}" for spec in given.values() for peer in spec.reward.peers}
        if unknown := sorted(named - given.keys()):
            raise ValueError(f"a policy names the peer {unknown[0]!r}, which is not among the policies")
        self._specs = {key: _in_company(spec, given, key in named) for key, spec in given.items()}
        self.detectors = detectors or DetectorSettings()
        """The ``[detectors]`` table of the file."""
        self.generation = 0
        """How often they have changed."""

    def become(self, others: Policies) -> list[str]:
        """Change into other policies while everything runs, as far as that is possible; returns what is not, in words.

        A policy that the others lack goes on, for its rewards may still be on their way. Of a policy in shards, lineage and number
        of shards stay: its parts are in several workers, which do not change at the same time.
        """
        refused = [
            f"{key} is no longer in the file: it goes on until the workers start again"
            for key in self._specs.keys() - others._specs
        ]
        specs = dict(self._specs)
        for key, spec in others._specs.items():
            held = specs.get(key)
            if held is not None and held.lineage != spec.lineage and max(held.shards, spec.shards) > 1:
                refused.append(
                    f"{key} is learned in shards: arms, features, components and shards change when all workers start again"
                )
                continue
            specs[key] = spec
        if specs != self._specs:
            self._specs = specs
            self.generation += 1
        return sorted(refused)

    @classmethod
    def of(cls, *specs: PolicySpec) -> Policies:
        """Policies made in code."""
        return cls({spec.key: spec for spec in specs})

    def get(self, tenant: str, policy: str) -> PolicySpec | None:
        """The spec of a tenant's policy, None when there is none."""
        return self._specs.get(f"{tenant}/{policy}")

    def by_key(self, key: str) -> PolicySpec | None:
        """The spec with this key ("tenant/name"), None when there is none."""
        return self._specs.get(key)

    def reward_key(self, tenant: str, policy: str, source_partition: int) -> str:
        """Key of a reward of a source partition; ``tenant/policy`` when there is no such policy."""
        spec = self.get(tenant, policy)
        return f"{tenant}/{policy}" if spec is None else spec.reward_key(source_partition)

    def __iter__(self) -> Iterator[PolicySpec]:
        return iter(self._specs.values())

    def __len__(self) -> int:
        return len(self._specs)


def _in_company(spec: PolicySpec, specs: Mapping[str, PolicySpec], is_peer: bool) -> PolicySpec:
    """A spec that knows its peers."""
    others = [(name, specs[f"{spec.tenant}/{name}"]) for name in spec.reward.peers]
    peers = tuple(Peer(name, other.arms, other.baseline) for name, other in others)
    return spec if (peers, is_peer) == (spec.peers, spec.is_peer) else replace(spec, peers=peers, is_peer=is_peer)
