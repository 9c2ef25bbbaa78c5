"""The equations of verify: what must be caught is caught and named, what may differ does not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.verify.equations import LISTED, Key, Member, Side, compare, side_of
from console.verify.policies import (
    Hashes,
    PolicyRecord,
    Replayed,
    Version,
    compare_replay,
    compare_versions,
    content_of,
    due_or_newer,
    heads,
    one_content_each,
)
from console.verify.producer_ledger import ProducerLedger, compare_producers, read_ledgers
from console.verify.span import OPEN, Span, parse_minute
from console.verify.windows import Count, WindowKey, compare_windows, counts_of
from steersman.errors import ConfigError

Record = tuple[Key, Member]

records = st.lists(
    st.tuples(
        st.tuples(st.sampled_from(["a", "b"]), st.integers(29_000_000, 29_000_003)),
        st.integers(0, 10**9),
    ),
    min_size=1,
    max_size=60,
).map(lambda found: [(key, Member(f"id{i}", amount, f"0:{i}")) for i, (key, amount) in enumerate(found)])


def side(name: str, found: list[Record]) -> Side:
    groups: dict[Key, list[Member]] = {}
    for key, member in found:
        groups.setdefault(key, []).append(member)
    return side_of(name, groups)


def both_ways(good: list[Record], bad: list[Record]) -> list[tuple[Side, Side]]:
    return [(side("log", good), side("table", bad)), (side("log", bad), side("table", good))]


@given(records, st.randoms())
def test_order_does_not_matter(found: list[Record], random: object) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    equation = compare("E", "same", side("log", found), side("table", shuffled))
    assert equation.ok
    assert equation.differing == []
    assert equation.left["n"] == equation.right["n"] == len(found)


@given(records, st.data())
def test_a_dropped_event_is_caught_and_named(found: list[Record], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(found) - 1))
    for left, right in both_ways(found, found[:at] + found[at + 1 :]):
        equation = compare("E", "drop", left, right)
        assert not equation.ok
        assert [line.split()[0] for line in equation.differing] == [found[at][1].id]


@given(records, st.data())
def test_a_doubled_event_is_caught_and_named(found: list[Record], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(found) - 1))
    key, member = found[at]
    for left, right in both_ways(found, [*found, (key, member._replace(place="0:1000000"))]):
        equation = compare("E", "double", left, right)
        assert not equation.ok
        assert [line.split()[0] for line in equation.differing] == [member.id]
        assert "0:1000000" in equation.differing[0]


@given(records, st.data(), st.integers(1, 10**6))
def test_a_changed_amount_is_caught_and_named(found: list[Record], data: st.DataObject, by: int) -> None:
    at = data.draw(st.integers(0, len(found) - 1))
    key, member = found[at]
    changed = [*found[:at], (key, member._replace(amount=member.amount + by)), *found[at + 1 :]]
    for left, right in both_ways(found, changed):
        equation = compare("E", "amount", left, right)
        assert not equation.ok
        assert [line.split()[0] for line in equation.differing] == [member.id]
        assert "amount" in equation.differing[0]


@given(records, st.data(), st.booleans())
def test_a_side_of_sums_alone_names_a_single_odd_event(found: list[Record], data: st.DataObject, double: bool) -> None:
    at = data.draw(st.integers(0, len(found) - 1))
    other = [*found, found[at]] if double else found[:at] + found[at + 1 :]
    sums = Side("ledger", side("ledger", other).groups)
    equation = compare("E", "sums", side("log", found), sums)
    assert not equation.ok
    assert len(equation.differing) == 1
    assert f" {found[at][1].id} at 0:{at} " in equation.differing[0]


@given(records, st.data())
def test_an_event_in_another_minute_is_caught(found: list[Record], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(found) - 1))
    (tenant, minute), member = found[at]
    moved = [*found[:at], ((tenant, int(minute) + 10), member), *found[at + 1 :]]
    assert not compare("E", "moved", side("log", found), side("table", moved)).ok


def test_no_more_is_listed_than_can_be_read() -> None:
    found: list[Record] = [(("a", 1), Member(f"id{i:03}")) for i in range(100)]
    equation = compare("E", "many", side("log", found), side("table", []))
    assert len(equation.differing) == LISTED
    assert equation.left["n"] == 100


def test_records_are_loaded_only_where_groups_differ() -> None:
    asked: list[Key] = []

    def members(keys: object) -> Mapping[Key, list[Member]]:
        asked.extend(keys)  # type: ignore[arg-type]
        return {("b", 2): [Member("y")]}

    groups = side("log", [(("a", 1), Member("x")), (("b", 2), Member("y"))]).groups
    left = Side("log", groups, members)
    assert not compare("E", "one", left, side("table", [(("a", 1), Member("x"))])).ok
    assert asked == [("b", 2)]


# ---- windows


def key(tenant: str = "t", kind: str = "END", start_s: int = 10) -> WindowKey:
    return WindowKey(tenant, kind, start_s * 1_000_000)


def test_windows_that_count_what_is_stored() -> None:
    windows = {key(): Count(3, 30), key(kind="DECISION"): Count(1, 5)}
    equation = compare_windows(windows, dict(windows), {}, exact=True)
    assert equation.ok
    assert (equation.left["n"], equation.right["amount"]) == (4, 35)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("counted", [Count(2, 30), Count(4, 30), Count(3, 31)], ids=["lost", "doubled", "amount"])
def test_a_window_that_counts_something_else_is_named(counted: Count, exact: bool) -> None:
    equation = compare_windows({key(): Count(3, 30)}, {key(): counted}, {}, exact=exact)
    assert not equation.ok
    assert "t END window 1970-01-01T00:00:10" in equation.differing[0]


def test_what_came_too_late_fills_the_gap_and_no_more() -> None:
    raw, rolled = (
        {key(): Count(3, 30), key(start_s=20): Count(1, 1)},
        {key(): Count(2, 20), key(start_s=20): Count(1, 1)},
    )
    assert compare_windows(raw, rolled, {"t": Count(1, 10)}, exact=True).ok
    assert not compare_windows(raw, rolled, {"t": Count(2, 20)}, exact=True).ok
    assert not compare_windows(raw, rolled, {"t": Count(1, 11)}, exact=True).ok
    assert not compare_windows(raw, rolled, {"u": Count(1, 10)}, exact=True).ok
    # Of a part of the log the late ones may belong to other windows.
    assert compare_windows(raw, rolled, {"t": Count(2, 20)}, exact=False).ok
    assert not compare_windows(raw, rolled, {}, exact=False).ok


def test_what_was_forgotten_is_counted_by_windows_and_no_more() -> None:
    gone = {"t": Count(2, 20)}
    raw = {key(): Count(1, 10), key("u"): Count(2, 2)}
    rolled = {key(): Count(2, 20), key(start_s=20): Count(1, 10), key("u"): Count(2, 2)}
    assert compare_windows(raw, rolled, {}, exact=True, forgotten=gone).ok
    assert not compare_windows(raw, rolled, {}, exact=True).ok
    for other in ({"t": Count(1, 10)}, {"t": Count(3, 30)}, {"t": Count(2, 21)}, {"u": Count(2, 20)}):
        assert not compare_windows(raw, rolled, {}, exact=True, forgotten=other).ok, other
    assert compare_windows(raw, rolled, {"t": Count(1, 5)}, exact=True, forgotten={"t": Count(3, 25)}).ok
    # Of a part of the log nobody knows which windows they were in: those of the tenant are left out, others are not.
    assert compare_windows(raw, rolled, {}, exact=False, forgotten=gone).ok
    assert not compare_windows(raw, rolled | {key("u"): Count(3, 2)}, {}, exact=False, forgotten=gone).ok


def test_a_loss_in_one_window_is_not_made_good_by_another() -> None:
    raw = {key(): Count(3, 0), key(start_s=20): Count(3, 0)}
    rolled = {key(): Count(2, 0), key(start_s=20): Count(4, 0)}
    assert not compare_windows(raw, rolled, {}, exact=True).ok


def test_windows_beyond_the_cap_are_compared_over_all_tenants() -> None:
    raw = {key("t"): Count(3, 3), key("u"): Count(2, 2)}
    rolled = {key("t"): Count(3, 3), key("__other__"): Count(2, 2)}
    assert compare_windows(raw, rolled, {}, exact=True).ok
    assert not compare_windows(raw, {key("t"): Count(3, 3), key("__other__"): Count(1, 1)}, {}, exact=True).ok


# ---- producers


def ledger(*lines: dict[str, object]) -> ProducerLedger:
    made = ProducerLedger()
    for line in lines:
        made.add(line)
    return made


def acked(identity: str, offset: int, **more: object) -> dict[str, object]:
    return {"event_id": identity, "outcome": "acked", "partition": 0, "offset": offset, "amount": 1, **more}


HELD = {0: (0, 1 << 63)}


def test_a_log_that_holds_what_was_acknowledged() -> None:
    sent = ledger(
        acked("a", 0),
        acked("", 1, poison=True),
        {"event_id": "u", "outcome": "unknown"},
        {"event_id": "v", "outcome": "unknown"},
        {"event_id": "r", "outcome": "refused"},
    )
    log = [((0, 0), "a", True), ((0, 1), None, True), ((0, 2), "u", True)]
    equation = compare_producers(sent, log, HELD)
    assert equation.ok, equation.differing
    assert equation.left["unknown"] == 2


@pytest.mark.parametrize(
    ("lines", "log", "named"),
    [
        ([acked("a", 0), acked("b", 1)], [((0, 0), "a", True)], "b at 0@1"),
        ([acked("a", 0)], [((0, 0), "a", True), ((0, 1), "x", True)], "x at 0@1"),
        ([acked("a", 0)], [((0, 0), "x", True)], "x at 0@0: a was"),
        ([acked("a", 0), acked("b", 0)], [((0, 0), "a", True)], "0@0: acknowledged more"),
        ([{"event_id": "r", "outcome": "refused"}], [((0, 0), "r", True)], "r at 0@0"),
        ([acked("a", -1)], [], "a: acknowledged, not in Kafka"),
        ([acked("", 0, poison=True)], [], "poison at 0@0"),
        ([acked("a", 0)], [((0, 0), "a", True), ((0, 1), None, True)], "unreadable record at 0@1"),
    ],
)
def test_what_is_wrong_with_a_log_is_named(
    lines: list[dict[str, object]], log: list[tuple[tuple[int, int], str | None, bool]], named: str
) -> None:
    equation = compare_producers(ledger(*lines), log, HELD)
    assert not equation.ok
    assert any(line.startswith(named) for line in equation.differing), equation.differing


def test_what_a_client_wrote_again_is_counted_apart() -> None:
    log = [((0, 0), "a", True), ((0, 1), "a", True), ((0, 2), "b", True), ((0, 3), "a", False)]
    equation = compare_producers(ledger(acked("a", 1), acked("b", 2)), log, HELD)
    assert equation.ok, equation.differing
    assert equation.right["written_again"] == 1
    assert "1 written again" in equation.note


def test_outside_the_range_nothing_is_asked_of_the_log() -> None:
    sent = ledger(acked("a", 0), acked("b", 5), acked("c", 99))
    log = [((0, 4), "older, by nobody", False), ((0, 5), "b", True)]
    assert compare_producers(sent, log, {0: (4, 6)}).ok


def test_without_ledgers_nothing_is_asked() -> None:
    equation = compare_producers(None, [((0, 0), "a", True)], HELD)
    assert equation.ok
    assert "no producer ledger" in equation.note


def test_reading_ledgers(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(json.dumps(acked("a", 0)) + "\n" + '{"event_id": "cut o')
    two.write_text(json.dumps(acked("b", 1)) + "\n")
    assert read_ledgers([one, two]).acked == {(0, 0): "a", (0, 1): "b"}
    two.write_text('{"outcome": "lost"}\n' + json.dumps(acked("b", 1)) + "\n")
    with pytest.raises(ConfigError, match=r"two\.jsonl, line 1: .*lost"):
        read_ledgers([one, two])
    with pytest.raises(ConfigError, match="none"):
        read_ledgers([tmp_path / "none"])


# ---- policies


def test_the_head_is_the_last_record_of_the_highest_version() -> None:
    found = [
        PolicyRecord("t/p", Version(1, 2, "a"), "x"),
        PolicyRecord("t/p", Version(1, 3, "b"), "y"),
        PolicyRecord("t/p", Version(1, 3, "c"), "y"),
        PolicyRecord("t/p", Version(1, 1, "d"), "z"),
        PolicyRecord("t/q", Version(2, 0, "e"), "z"),
    ]
    assert heads(found) == {"t/p": Version(1, 3, "c"), "t/q": Version(2, 0, "e")}
    assert one_content_each(found).ok
    equation = one_content_each([*found, PolicyRecord("t/p", Version(1, 2, "f"), "other")])
    assert not equation.ok
    assert equation.differing == ["t/p epoch 1 version 2: 2 different records"]
    assert one_content_each([*found, PolicyRecord("t/p", Version(1, 2, "f"), "other", "by later rules")]).ok


def test_a_version_that_was_made_again_has_the_same_content() -> None:
    record = {"policy": "p", "version": 3, "created_at": 1, "signature": b"a", "applied_sources": [{"offset": 5}]}
    later = record | {"created_at": 2, "signature": b"b", "applied_sources": [{"offset": 7}]}
    assert content_of(record) == content_of(later)
    assert content_of(record) != content_of(record | {"tensors": [1.0]})


def test_a_holder_of_another_version_is_named() -> None:
    topic = {"t/p": Version(1, 3, "b"), "t/q": Version(1, 1, "c")}
    assert compare_versions("E6", "held", topic, dict(topic), "agents").ok
    for other in (
        {"t/p": Version(1, 3, "b")},
        topic | {"t/q": Version(1, 1, "d")},
        topic | {"t/q": Version(1, 2, "c")},
    ):
        equation = compare_versions("E6", "held", topic, other, "agents")
        assert not equation.ok
        assert equation.differing[0].startswith("t/q: 1.1 (c) on the topic")


def test_whoever_follows_a_growing_topic_holds_anything_from_the_head_that_was_due_on() -> None:
    head = {"t/p": Version(1, 9, "b")}
    due = {"t/p": Version(1, 3, "a")}
    for held, ok in ((3, True), (5, True), (9, True), (2, False), (10, False), (None, False)):
        other = {} if held is None else {"t/p": Version(1, held)}
        must = {policy: due_or_newer(due, other, policy, version) for policy, version in head.items()}
        assert compare_versions("E6", "held", must, other, "agents").ok is ok, held


def test_a_replay_that_gives_other_bytes_is_named() -> None:
    assert compare_replay(None).ok
    same = Replayed("t/p", [Hashes("state", "s", "s"), Hashes("snapshot", "r", "r")])
    cut = Replayed("t/r", cut="the log begins at offset 7")
    assert compare_replay([same, cut]).ok
    assert "offset 7" in compare_replay([same, cut]).note
    equation = compare_replay([same, Replayed("t/q", [Hashes("state", "s", "u")]), Replayed("t/x", problem="no state")])
    assert not equation.ok
    assert equation.differing == ["t/q: state s, replayed u", "t/x: no state"]


def test_times_of_the_command_line() -> None:
    assert parse_minute("1970-01-01T01:02:59", "--from") == 62
    assert parse_minute("1970-01-01T01:02+01:00", "--from") == 2
    with pytest.raises(ConfigError, match="--from 'noon'"):
        parse_minute("noon", "--from")
    assert Span(1, OPEN).text == ("1970-01-01T00:01Z", None)
    assert 5 in Span(5, 6)
    assert 6 not in Span(5, 6)


def test_where_workers_price_calls_only_counts_are_compared() -> None:
    raw, rolled = {key(): Count(3, 30)}, {key(): Count(3, 90)}
    assert not compare_windows(raw, rolled, {}, exact=True).ok
    assert compare_windows(counts_of(raw), counts_of(rolled), {}, exact=True).ok
    assert not compare_windows(counts_of(raw), counts_of({key(): Count(2, 90)}), {}, exact=True).ok
