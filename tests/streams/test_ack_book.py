"""The book of acknowledged batches, by example and against a model."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streams.ack_book import AckBook

P = ("trace", 0)


def test_commits_only_what_is_contiguous() -> None:
    book = AckBook()
    first, second, third = (book.deliver(P, a, b) for a, b in ((0, 9), (10, 19), (20, 29)))
    assert book.acknowledge(second)
    assert book.committable(P) is None
    assert book.acknowledge(first)
    assert book.committable(P) == 20
    book.commit(P, 20)
    assert book.committable(P) is None
    assert book.acknowledge(third)
    assert book.committable(P) == 30
    assert book.in_flight(P) == 0


def test_gaps_between_batches_hold_nothing_up() -> None:
    book = AckBook()
    tickets = [book.deliver(P, a, b) for a, b in ((10, 20), (55, 60), (61, 61), (900, 1000))]
    for ticket in tickets:
        book.acknowledge(ticket)
    assert book.committable(P) == 1001


def test_a_commit_that_was_refused_stays_committable() -> None:
    book = AckBook()
    book.acknowledge(book.deliver(P, 0, 4))
    assert book.committable(P) == 5
    assert book.committable(P) == 5  # the caller did not report success


def test_late_acknowledgement_does_not_count_for_a_redelivery() -> None:
    book = AckBook()
    before = book.deliver(P, 0, 9)
    book.seek(P, 0)
    again = book.deliver(P, 0, 9)
    assert not book.acknowledge(before)
    assert book.committable(P) is None
    assert book.acknowledge(again)
    assert book.committable(P) == 10
    assert not book.acknowledge(again)


def test_revocation_voids_everything_of_the_partition_only() -> None:
    book = AckBook()
    other = ("trace", 1)
    mine, theirs = book.deliver(P, 0, 9), book.deliver(other, 0, 9)
    book.revoke([P, ("trace", 7)])
    assert not book.acknowledge(mine)
    assert book.committable(P) is None
    assert book.acknowledge(theirs)
    assert book.committable(other) == 10
    assert list(book.partitions()) == [other]
    book.commit(P, 10)  # comes back from the broker after the revocation
    assert list(book.partitions()) == [other]


def test_seek_backwards_lets_a_lower_offset_be_committed() -> None:
    book = AckBook()
    book.acknowledge(book.deliver(P, 0, 99))
    book.commit(P, 100)
    book.seek(P, 50)
    book.acknowledge(book.deliver(P, 50, 59))
    assert book.committable(P) == 60


def test_refuses_delivery_out_of_order() -> None:
    book = AckBook()
    book.deliver(P, 0, 9)
    with pytest.raises(ValueError, match="follows one that ends at 9"):
        book.deliver(P, 9, 12)
    with pytest.raises(ValueError, match="runs from"):
        book.deliver(P, 30, 20)


@dataclass
class _Model:
    """What a partition's log has seen: plain sets instead of a queue."""

    position: int = 0
    live: dict[int, tuple[int, int]] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    void: set[int] = field(default_factory=set)
    delivered: list[int] = field(default_factory=list)


class Book(RuleBasedStateMachine):
    """Random deliveries, acknowledgements, seeks, revocations and commits."""

    def __init__(self) -> None:
        super().__init__()
        self.book = AckBook()
        self.models = [_Model(), _Model()]
        self.committed: list[int | None] = [None, None]

    def _partition(self, number: int) -> tuple[str, int]:
        return ("trace", number)

    @rule(number=st.integers(0, 1), gap=st.integers(0, 5), length=st.integers(1, 20))
    def deliver(self, number: int, gap: int, length: int) -> None:
        model = self.models[number]
        first = model.position + gap
        ticket = self.book.deliver(self._partition(number), first, first + length - 1)
        model.live[ticket] = (first, first + length - 1)
        model.delivered.append(ticket)
        model.position = first + length

    @precondition(lambda self: any(model.live for model in self.models))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from([n for n, model in enumerate(self.models) if model.live]))
        model = self.models[number]
        ticket = data.draw(st.sampled_from(sorted(model.live)))
        assert self.book.acknowledge(ticket) == (ticket not in model.done)
        model.done.add(ticket)

    @precondition(lambda self: any(model.void for model in self.models))
    @rule(data=st.data())
    def acknowledge_void(self, data: st.DataObject) -> None:
        void = sorted(set().union(*(model.void for model in self.models)))
        assert not self.book.acknowledge(data.draw(st.sampled_from(void)))

    @rule(number=st.integers(0, 1), offset=st.integers(0, 300), revoke=st.booleans())
    def move(self, number: int, offset: int, revoke: bool) -> None:
        model = self.models[number]
        if revoke:
            self.book.revoke([self._partition(number)])
            self.committed[number] = None
        else:
            self.book.seek(self._partition(number), offset)
            self.committed[number] = offset
        void = model.void | set(model.delivered)
        self.models[number] = _Model(position=offset, void=void)

    @rule(number=st.integers(0, 1))
    def commit(self, number: int) -> None:
        offset = self.book.committable(self._partition(number))
        if offset is not None:
            self.book.commit(self._partition(number), offset)
            self.committed[number] = offset

    @invariant()
    def agrees_with_the_model(self) -> None:
        for number, model in enumerate(self.models):
            expected = None
            for ticket in model.delivered:
                if ticket not in model.done:
                    break
                expected = model.live[ticket][1] + 1
            if expected == self.committed[number]:
                expected = None
            assert self.book.committable(self._partition(number)) == expected


TestBook = Book.TestCase
TestBook.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)


def test_where_the_state_is_ahead_of_the_group_its_offset_is_to_be_committed() -> None:
    book = AckBook()
    book.seek(P, 144, committed=98)
    assert book.committable(P) == 144
    book.commit(P, 144)
    assert book.committable(P) is None
    assert book.acknowledge(book.deliver(P, 144, 150))
    assert book.committable(P) == 151
    book.seek(P, 7, committed=7)
    assert book.committable(P) is None
