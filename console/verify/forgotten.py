"""What `steersman forget` deleted, so that it is not taken for lost: by places in Kafka, and whole tenants by name. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from console.verify.equations import Side
from console.verify.kafka_side import TraceLog
from console.verify.records import EVENT, Letter, Place, RewardRow
from console.verify.span import Span
from console.verify.windows import Count

V = TypeVar("V")
_BY_PLACE = frozenset({"E1b", "E2a", "E3", "E4a"})
_BY_TENANT = _BY_PLACE | {"E2b", "E4b", "E4c", "E4d", "E6b"}


@dataclass(frozen=True)
class Forgotten:
    """What was deleted from the tables.

    Attributes
    ----------
    events, rewards
        Places of the records whose rows are gone, in the trace and in the reward topic.
    event_letters, reward_letters
        Dead letters of records of these topics.
    tenants
        Tenants of which everything was deleted since the range began: nothing of theirs is compared.
    """

    events: frozenset[Place] = frozenset()
    rewards: frozenset[Place] = frozenset()
    event_letters: Sequence[Letter] = ()
    reward_letters: Sequence[Letter] = ()
    tenants: frozenset[str] = frozenset()

    def note(self, equation: str) -> str:
        """What has to be known to read an equation; empty when nothing of it was forgotten."""
        parts = []
        if equation in _BY_PLACE and (self.events or self.rewards):
            parts.append("without what was forgotten")
        if equation in _BY_TENANT and self.tenants:
            parts.append(f"without {len(self.tenants)} forgotten tenant{'s' * (len(self.tenants) > 1)}")
        return ", ".join(parts)

    def counts(self, log: TraceLog, refused: Collection[Place], span: Span) -> dict[str, Count]:
        """Distinct valid events whose rows are gone, by tenant: windows still count them. Nothing of tenants that are gone as a whole."""
        found: dict[tuple[str, str], int] = {}
        for partition, offset in sorted(self.events):
            row = log.at(partition, offset)
            if row is None or row.kind != EVENT or row.minute not in span or (partition, offset) in refused:
                continue
            found.setdefault((row.tenant, row.id), row.amount)
        made: dict[str, Count] = {}
        for (tenant, _), amount in found.items():
            if tenant in self.tenants:
                continue
            made[tenant] = made.get(tenant, Count()).plus(Count(1, amount))
        return made

    def of_rewards(self, rewards: Iterable[RewardRow]) -> set[tuple[str, str]]:
        """Tenant and id of the rewards whose row is gone, whichever of its copies the row was."""
        return {(r.tenant, r.id) for r in rewards if (r.partition, r.offset) in self.rewards}


NOTHING_FORGOTTEN = Forgotten()


def apart(side: Side, tenants: Collection[str]) -> Side:
    """Leave tenants out of a side whose groups are keyed by tenant first."""
    if not tenants:
        return side
    return replace(side, groups={key: one for key, one in side.groups.items() if key[0] not in tenants})


def without(found: Mapping[str, V], tenants: Collection[str]) -> dict[str, V]:
    """Leave tenants out of a mapping keyed by ``tenant/name``."""
    return {key: value for key, value in found.items() if key.partition("/")[0] not in tenants}
