"""What a partition of the state topic adds up to, and that nothing damaged gets in."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest

from streams.state_log import (
    FENCE,
    FENCE_HOLDS_S,
    MARKER,
    META,
    RESET,
    Recovered,
    StateDamaged,
    StateFold,
    StateTakenOver,
    fenced_id,
    marker,
    record_key,
    seal,
    writer_id,
)

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Record:
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int = 0


def record(owner: str, key: str, value: bytes | None, *, at_ms: int = 0, stage: str = "trace") -> Record:
    full = record_key(stage, 3, key)
    return Record(full, value, tuple(seal(full, value, owner)), at_ms)


def fence(owner: str, at_ms: int = 0) -> Record:
    return record(owner, FENCE, owner.encode(), at_ms=at_ms)


def fold(records: list[Record], owner: str | None = None, stage: str = "trace") -> Recovered:
    made = StateFold(stage, 3, owner, "t.state.v1, partition 3")
    for offset, one in enumerate(records):
        if made.feed(offset, one.timestamp_ms, one.key, one.value, list(one.headers)):
            break
    return made.result()


A, B = writer_id(1, "a"), writer_id(2, "b")


def checkpoints() -> list[Record]:
    return [
        fence(A),
        record(A, "x", b"one"),
        record(A, "y", b"two"),
        record(A, MARKER, marker(10, b"meta")),
        record(A, "lin", b"model", stage="learn"),
        record(A, "x", None),
        record(A, "z/with/slashes", b"three"),
        record(A, MARKER, marker(20, b"later")),
        fence(B),
    ]


def test_adds_up_to_the_latest_of_each_key() -> None:
    found = fold(checkpoints(), B)
    assert found.items == {"y": b"two", "z/with/slashes": b"three", META: b"later"}
    assert (found.next_offset, found.ignored) == (20, 0)
    assert fold(checkpoints(), stage="learn").items == {"lin": b"model"}


def test_nothing_of_a_former_owner_counts_after_the_fence() -> None:
    late = [record(A, "y", b"zombie"), record(A, MARKER, marker(99, None)), fence(writer_id(3, "c"))]
    found = fold(checkpoints() + late, writer_id(3, "c"))
    assert found.items["y"] == b"two"
    assert (found.next_offset, found.ignored) == (20, 2)


def test_a_fence_that_was_held_up_is_void() -> None:
    records = [*checkpoints(), fence(A, 5), record(B, "y", b"new", at_ms=6), record(B, MARKER, marker(30, None))]
    found = fold(records)
    assert (found.items["y"], found.next_offset, found.ignored) == (b"new", 30, 1)
    with pytest.raises(StateTakenOver, match="later generation"):
        fold([fence(B), fence(A, 5)], A)


def saved(writer: str, fence_at: int, next_offset: int) -> list[Record]:
    owner = fenced_id(writer, fence_at)
    return [record(owner, "y", b"of %d" % next_offset), record(owner, MARKER, marker(next_offset, None))]


def test_compaction_may_merge_a_fence_with_a_void_one() -> None:
    # B's fence, offset 0, went when A's, which was held up, came; then B saved on.
    void = fence(A)
    assert fold([*saved(B, 0, 10), void, *saved(B, 0, 20)]).next_offset == 20
    assert fold([void, *saved(B, 0, 20)]).next_offset == 20
    assert fold([*saved(B, -1, 10), void, *saved(B, -1, 20)]).next_offset == 20


def test_the_order_of_fences_outlives_them() -> None:
    zombie = saved(A, 0, 99)
    found = fold([*saved(A, 0, 10), *saved(B, 5, 20), *zombie, fence(writer_id(3, "c"))])
    assert (found.items, found.next_offset, found.ignored) == ({"y": b"of 20"}, 20, 2)


def test_what_was_saved_after_a_reset_counts_when_compaction_has_merged_its_fence() -> None:
    operator = record(writer_id(0, "operator"), RESET, b"")
    assert fold([*saved(B, -1, 10), operator, *saved(B, 9, 20)]).next_offset == 20
    late = fold([operator, *saved(B, -1, 10)])
    assert (late.next_offset, late.ignored) == (None, 2)


def test_generations_may_start_again_after_a_long_silence() -> None:
    owner = writer_id(1, "fresh group")
    records = [fence(writer_id(57, "old")), record(writer_id(57, "old"), "k", b"v", at_ms=1000)]
    with pytest.raises(StateTakenOver):
        fold([*records, fence(owner, 1000 + FENCE_HOLDS_S * 1000 - 1)], owner)
    assert fold([*records, fence(owner, 1000 + FENCE_HOLDS_S * 1000)], owner).items == {"k": b"v"}


def test_reset_makes_everything_before_it_void_even_damage() -> None:
    bad = replace(checkpoints()[1], value=b"onE")
    operator = writer_id(0, "operator")
    records = [*checkpoints(), bad, record(operator, RESET, b""), record(B, "y", b"not any more")]
    found = fold([*records, fence(writer_id(1, "c"))], writer_id(1, "c"))
    assert (found.items, found.next_offset, found.ignored) == ({}, None, 1)


def flipped(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return b"\x00"
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def corrupt(one: Record, others: list[Record], rng: random.Random) -> Record:
    """One damage that a disk, a memory cell, a bug or a stranger may do to a record."""
    what = rng.randrange(8)
    headers = list(one.headers)
    if what == 0:
        return replace(one, key=flipped(one.key or b"", rng))
    if what == 1:
        return replace(one, value=flipped(one.value or b"", rng))
    if what == 2 and one.value:
        return replace(one, value=one.value[: rng.randrange(len(one.value))])
    if what == 3:
        at = rng.randrange(len(headers))
        headers[at] = (headers[at][0], flipped(headers[at][1], rng))
        return replace(one, headers=tuple(headers))
    if what == 4:
        del headers[rng.randrange(len(headers))]
        return replace(one, headers=tuple(headers))
    if what == 5:
        return replace(one, value=None if one.value is not None else b"")
    if what == 6:
        return replace(one, value=rng.choice(others).value)
    return replace(one, key=rng.choice(others).key)


def test_of_a_thousand_corruptions_none_is_loaded_silently() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    good = checkpoints()
    expected = fold(good, B)
    done = 0
    while done < 1000:
        at = rng.randrange(len(good) - 1)
        damaged = corrupt(good[at], good, rng)
        if damaged == good[at]:
            continue
        done += 1
        records = [*good[:at], damaged, *good[at + 1 :]]
        with pytest.raises(StateDamaged, match=r"python -m streams reset --stage trace --partition 3"):
            fold(records, B)
    assert fold(good, B) == expected


def test_records_without_any_digest_are_damaged() -> None:
    with pytest.raises(StateDamaged, match="offset 0"):
        fold([Record(b"trace/3/k", b"v", (("owner", b"x"),))])
    with pytest.raises(StateDamaged):
        fold([Record(None, b"v", ())])


@pytest.mark.parametrize("value", [b"no json", b"[" * 100_000, b"{}", b'{"next_offset": "x"}', b'{"next_offset": -1e999}', b'{"next_offset": 1, "meta": "\xff"}', None])  # fmt: skip
def test_a_record_that_cannot_be_read_is_damage_though_its_digest_is_right(value: bytes | None) -> None:
    unreadable = record(B, MARKER, value) if value is not None else record("2-b@x", "y", b"two")
    with pytest.raises(StateDamaged, match="cannot be read"):
        fold([*checkpoints(), unreadable])
