"""Sides of the equations from records: who counts which of them, under which key. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from console.verify.equations import Key, Member, Side
from console.verify.kafka_side import TraceLog
from console.verify.records import EVENT, TICK, UNREADABLE, Letter, Place, RewardRow, Row, StoredReward
from console.verify.span import OPEN, Span
from steersman.fingerprint import Fingerprint

Keyed = tuple[Key, Member]


def streamed(name: str, records: Callable[[], Iterable[Keyed]]) -> Side:
    """Make a side of records that can be gone through again."""
    groups: dict[Key, Fingerprint] = {}
    for key, member in records():
        groups.setdefault(key, Fingerprint()).add(member.id, member.amount)

    def members(keys: Collection[Key]) -> dict[Key, list[Member]]:
        found: dict[Key, list[Member]] = {key: [] for key in keys}
        for key, member in records():
            if key in found:
                found[key].append(member)
        return found

    return Side(name, groups, members)


def joined(name: str, first: Side, second: Side) -> Side:
    """Put two sides with records together."""
    groups: dict[Key, Fingerprint] = {}
    for side in (first, second):
        for key, one in side.groups.items():
            groups.setdefault(key, Fingerprint()).merge(one)

    def members(keys: Collection[Key]) -> dict[Key, list[Member]]:
        parts = [side.members(keys) for side in (first, second) if side.members is not None]
        return {key: [m for part in parts for m in part.get(key, ())] for key in keys}

    return Side(name, groups, members)


def keyed(row: Row) -> Keyed:
    """Key a record by tenant and minute; what cannot be read has no tenant, and its place for an id."""
    if row.kind == UNREADABLE:
        return ("", row.minute), Member(row.place, 0, row.place)
    return (row.tenant, row.minute), Member(row.id, row.amount, row.place)


def in_kafka(log: TraceLog, span: Span, without: Collection[Place] = ()) -> Side:
    """All records of the trace topic but ticks, and but those at some places."""
    return streamed(
        "Kafka",
        lambda: (
            keyed(r)
            for r in log.rows()
            if r.kind != TICK and r.minute in span and (r.partition, r.offset) not in without
        ),
    )


def refused_by_sink(log: TraceLog, letters: Iterable[Letter], span: Span) -> Side:
    """Records of the trace topic that the sink could not store."""
    return streamed("dead letters", lambda: _letters(log, letters, span))


def valid(log: TraceLog, refused: Collection[Place], span: Span) -> Side:
    """Readable records of the trace topic that the trace stage did not refuse, but ticks."""
    return streamed(
        "Kafka",
        lambda: (
            keyed(r)
            for r in log.rows()
            if r.kind == EVENT and r.minute in span and (r.partition, r.offset) not in refused
        ),
    )


def invalid(log: TraceLog, refused: Collection[Place], span: Span) -> Side:
    """Records of the trace topic that the trace stage cannot take, by their places; by minute alone."""
    return streamed(
        "Kafka",
        lambda: (
            ((r.minute,), Member(r.place, 0, r.id))
            for r in log.rows()
            if r.minute in span and (r.kind == UNREADABLE or (r.partition, r.offset) in refused)
        ),
    )


def unreadable(log: TraceLog, span: Span) -> Side:
    """Records of the trace topic that are no events."""
    return streamed(
        "Kafka", lambda: (((), Member(r.place)) for r in log.rows() if r.kind == UNREADABLE and r.minute in span)
    )


def buried(log: TraceLog, letters: Iterable[Letter], span: Span) -> Side:
    """Places of dead letters."""
    return streamed("dead letters", lambda: (((), Member(m.place)) for _, m in _letters(log, letters, span)))


def distinct_ids(log: TraceLog, lost: Collection[Place], span: Span) -> Side:
    """Every event id of a tenant once."""
    ids = {
        (r.tenant, r.id)
        for r in log.rows()
        if r.kind == EVENT and r.minute in span and (r.partition, r.offset) not in lost
    }
    return streamed("Kafka", lambda: (((tenant,), Member(identity)) for tenant, identity in ids))


def rewards_of(
    rewards: Iterable[RewardRow],
    caused: Callable[[int, int], bool],
    only: Collection[Place] | None = None,
    without: Collection[tuple[str, str]] = (),
) -> Side:
    """First copies of rewards whose cause is in the range, by policy; `only` those at some places, `without` some of a tenant and id."""
    return streamed(
        "reward topic" if only is None else "dead letters",
        lambda: (
            ((r.tenant, r.policy), Member(r.id, r.cost, r.place))
            for r in rewards
            if r.readable
            and r.first
            and caused(r.source_partition, r.source_offset)
            and (only is None or (r.partition, r.offset) in only)
            and (r.tenant, r.id) not in without
        ),
    )


def stored_rewards(rewards: Iterable[StoredReward], caused: Callable[[int, int], bool]) -> Side:
    """Rows of the rewards table whose cause is in the range, by policy."""
    return streamed(
        "rewards",
        lambda: (
            ((r.tenant, r.policy), Member(r.id, r.cost, r.place))
            for r in rewards
            if caused(r.source_partition, r.source_offset)
        ),
    )


def to_learn(
    rewards: Iterable[RewardRow], span: Span, without: Collection[Key] = (), repeats: Collection[Place] | None = None
) -> Side:
    """What the learn stage has to account for, by policy: what cannot be read by its place.

    Parameters
    ----------
    rewards
        The reward topic.
    span
        Range of the rewards' own minutes.
    without
        Policies to leave out.
    repeats
        Places of which repeats count too, since no learner saw them to tell; None: every repeat counts.
    """

    def records() -> Iterator[Keyed]:
        for r in rewards:
            key = (r.tenant, r.policy)
            if r.minute not in span or key in without:
                continue
            if not r.readable:
                yield key, Member(r.place, 0, r.place)
            elif r.first or repeats is None or (r.partition, r.offset) in repeats:
                yield key, Member(r.id, r.cost, r.place)

    return streamed("reward topic", records)


def caused_within(log: TraceLog, span: Span) -> Callable[[int, int], bool]:
    """Tell whether the trace record at a partition and offset, which caused a reward, is in the range."""

    def wanted(partition: int, offset: int) -> bool:
        cause = log.at(partition, offset)
        if cause is not None:
            return cause.minute in span
        # Ticks after the last record read are newer than it.
        return span.whole or (span.end == OPEN and offset >= log.reader.next.get(partition, 0))

    return wanted


def _letters(log: TraceLog, letters: Iterable[Letter], span: Span) -> Iterator[Keyed]:
    """Key dead letters like the records they are of, or by their places where the log holds none."""
    for letter in letters:
        row = log.at(*letter.place)
        if (letter.minute if row is None else row.minute) in span:
            place = f"{letter.place[0]}:{letter.place[1]}"
            yield keyed(row) if row is not None else (("", letter.minute), Member(place, 0, place))
