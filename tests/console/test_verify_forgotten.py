"""What was forgotten, as the equations see it."""

from __future__ import annotations

from typing import Any

from console.verify.equations import Member, side_of
from console.verify.forgotten import NOTHING_FORGOTTEN, Forgotten, apart, without
from console.verify.records import EVENT, TICK, UNREADABLE, RewardRow, Row
from console.verify.span import Span
from console.verify.windows import Count

ROWS = {
    (0, 1): Row(EVENT, "a", "t", 10, 5, 0, 1),
    (0, 2): Row(EVENT, "a", "t", 10, 5, 0, 2),  # sent twice
    (0, 3): Row(EVENT, "b", "t", 10, 7, 0, 3),
    (0, 4): Row(EVENT, "c", "u", 10, 1, 0, 4),
    (0, 5): Row(EVENT, "d", "t", 99, 1, 0, 5),
    (0, 6): Row(EVENT, "e", "t", 10, 1, 0, 6),
    (0, 7): Row(UNREADABLE, "", "", 10, 0, 0, 7),
    (0, 8): Row(TICK, "f", "", 10, 0, 0, 8),
}


class Log:
    def at(self, partition: int, offset: int) -> Row | None:
        return ROWS.get((partition, offset))


LOG: Any = Log()


def test_each_event_that_windows_counted_is_counted_once() -> None:
    gone = Forgotten(events=frozenset({*ROWS, (0, 99)}))
    assert gone.counts(LOG, {(0, 6)}, Span(0, 50)) == {"t": Count(2, 12), "u": Count(1, 1)}
    whole = Forgotten(events=gone.events, tenants=frozenset({"u"}))
    assert whole.counts(LOG, {(0, 6)}, Span(0, 50)) == {"t": Count(2, 12)}
    assert NOTHING_FORGOTTEN.counts(LOG, (), Span()) == {}


def test_a_reward_is_known_by_any_of_its_copies() -> None:
    rewards = [RewardRow(0, n, 10, True, n == 1, "d", "t", "p") for n in (1, 2)]
    rewards.append(RewardRow(0, 3, 10, True, True, "other", "t", "p"))
    assert Forgotten(rewards=frozenset({(0, 2)})).of_rewards(rewards) == {("t", "d")}


def test_tenants_are_left_out_and_it_is_said_where_it_matters() -> None:
    side = side_of("x", {("t", 1): [Member("a")], ("u", 1): [Member("b")]})
    assert apart(side, {"u"}).groups.keys() == {("t", 1)}
    assert apart(side, ()) is side
    assert without({"t/p": 1, "u/p": 2}, {"u"}) == {"t/p": 1}
    gone = Forgotten(events=frozenset({(0, 1)}), tenants=frozenset({"u"}))
    assert gone.note("E2a") == "without what was forgotten, without 1 forgotten tenant"
    assert gone.note("E4c") == "without 1 forgotten tenant"
    assert gone.note("E7a") == NOTHING_FORGOTTEN.note("E2a") == ""
