"""Batches fill while others are inserted: nothing is stored for commit too early, and nothing is lost on the way."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from sinks.batch import Rejected
from sinks.inserter import Inserter
from sinks.tables import Message, Row, Table
from sinks.writer import MAX_CONSECUTIVE, Backoff, TooManyRejected, Writer
from sinks.writers import Writers
from steersman.errors import DecodeError
from tests.sinks.gate import Gate

COLUMNS = (("v", "String"), ("kafka_offset", "Int64"))
AWAY = OperationalError("the connection was closed")


PARSED: list[tuple[str, int]] = []


def row(message: Message) -> Row:
    PARSED.append((message.topic, message.offset))
    if message.value == b"bad":
        raise DecodeError("magic", "bad")
    return {"v": message.value, "kafka_offset": message.offset}


class World:
    """Two tables, a clock that is told the time, and what was stored and buried."""

    def __init__(self, *, background: bool = True, flush_rows: int = 100) -> None:
        self.now = 0.0
        self.gate = Gate()
        self.stored: list[tuple[str, dict[int, int]]] = []
        self.buried: list[tuple[int, int]] = []
        self.tables = {topic: self._writer(topic, flush_rows) for topic in "ab"}
        self.inserter = Inserter(self.gate.connect, background=background)
        self.writers = Writers(
            self.tables, self.inserter, lambda *positions: self.stored.append(positions), lambda: self.now
        )
        self._offsets: dict[tuple[str, int], int] = {}

    def _writer(self, topic: str, flush_rows: int) -> Writer:
        def bury(rejected: list[Rejected]) -> None:
            self.buried += [(r.message.partition, r.message.offset) for r in rejected]

        table = Table(f"table_{topic}", topic, COLUMNS, row)
        return Writer(
            table, Backoff(random.Random(0)), bury, flush_s=1.0, flush_rows=flush_rows, flush_bytes=1 << 20
        )  # fmt: skip

    def read(self, topic: str, count: int, value: bytes = b"v", partition: int = 0) -> None:
        for _ in range(count):
            offset = self._offsets.get((topic, partition), 0)
            self._offsets[topic, partition] = offset + 1
            self.writers.add(Message(topic, partition, offset, None, value))

    def turn(self, after_s: float = 0.0) -> None:
        self.now += after_s
        self.writers.turn()

    def turn_until_stored(self, count: int, after_s: float = 0.0) -> None:
        self.now += after_s
        deadline = time.monotonic() + 30
        while len(self.stored) < count:
            assert time.monotonic() < deadline
            self.writers.turn()

    def turn_until_blocked(self, topic: str) -> None:
        deadline = time.monotonic() + 30
        while not self.tables[topic].blocked:
            assert time.monotonic() < deadline
            self.writers.turn()

    def tokens(self, topic: str) -> list[str]:
        return [token for table, token in self.gate.seen if table == f"table_{topic}"]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.gate.end(*[None] * 20)
    made.inserter.stop()


def under_way(world: World, topic: str = "a", count: int = 3) -> None:
    """Begin the insert of a batch."""
    world.read(topic, count)
    world.turn(1.0)
    world.gate.begun()


def test_reading_goes_on_and_no_offset_is_stored_before_the_insert_ends(world: World) -> None:
    under_way(world)
    world.read("a", 4)
    for _ in range(100):
        world.turn(1.0)
    assert world.stored == []
    assert (len(world.gate.seen), world.tables["a"].waiting) == (1, 7), "one batch of a table at a time"
    assert world.writers.full == set()
    world.gate.end(None)
    world.turn_until_stored(1)
    world.gate.begun()
    assert world.stored == [("a", {0: 3})]
    world.gate.end(None)
    world.turn_until_stored(2)
    assert world.stored == [("a", {0: 3}), ("a", {0: 7})]
    assert len(set(world.tokens("a"))) == 2
    assert world.tables["a"].counters["rows"] == 7
    assert world.gate.threads.isdisjoint({threading.get_ident()})


def test_a_second_batch_that_is_full_holds_its_topic_back() -> None:
    world = World(flush_rows=3)
    under_way(world)
    world.read("a", 2)
    world.read("b", 2)
    assert world.writers.full == set()
    world.read("a", 1)
    world.turn()
    assert world.writers.full == {"a"}
    world.gate.end(None)
    world.turn_until_stored(1)
    assert world.writers.full == set(), "the second one is under way"
    world.gate.end(None, None)
    world.turn_until_stored(2)
    world.inserter.stop()


def test_a_full_batch_is_made_ready_while_one_is_under_way_and_may_lose_a_partition() -> None:
    PARSED.clear()
    world = World(flush_rows=3)
    under_way(world)
    world.read("a", 3)
    world.read("a", 1, partition=1)
    world.turn()
    assert len(PARSED) == 7, "the second is parsed, too"
    assert (len(world.gate.seen), world.tables["a"].waiting) == (1, 7)
    assert world.writers.full == {"a"}
    world.read("a", 5)
    world.turn()
    assert len(PARSED) == 7, "and no third"
    world.writers.drop("a", 1)
    world.gate.end(None, None, None)
    world.turn_until_stored(3)
    assert world.stored == [("a", {0: 3}), ("a", {0: 6}), ("a", {0: 11})]
    assert (len(PARSED), len(set(world.tokens("a")))) == (12, 3)
    world.inserter.stop()


def test_too_many_rejected_in_what_is_made_ready() -> None:
    world = World(flush_rows=3)
    under_way(world)
    world.read("a", MAX_CONSECUTIVE + 5, b"bad")
    with pytest.raises(TooManyRejected):
        world.turn()
    world.gate.end(None)
    world.writers.drain("a")
    assert world.stored == [("a", {0: 3}), ("a", {0: 3 + MAX_CONSECUTIVE})]
    world.inserter.stop()


def test_a_small_table_waits_for_one_batch_of_a_large_one(world: World) -> None:
    under_way(world)
    world.read("a", 50)
    world.read("b", 1)
    world.turn(1.0)
    world.gate.end(None, None, None)
    world.turn_until_stored(3)
    assert [table for table, _ in world.gate.seen] == ["table_a", "table_b", "table_a"]


def test_what_failed_comes_again_with_its_token_then_what_came_meanwhile(world: World) -> None:
    under_way(world)
    world.read("a", 2)
    world.gate.end(AWAY)
    world.turn_until_blocked("a")
    assert world.stored == []
    assert world.writers.full == {"a"}, "its topic is not read before the batch is stored"
    assert (world.gate.opened, world.gate.closed) == (1, 1), "the connection may be to a server that is gone"
    assert "closed" in world.tables["a"].last_error
    world.turn()
    assert len(world.gate.seen) == 1, "after a pause"
    world.turn(0.2)
    world.gate.begun()
    assert world.writers.full == {"a"}
    world.gate.end(None, None)
    world.turn_until_stored(2, after_s=1.0)
    first, again, second = world.tokens("a")
    assert (first == again, first == second) == (True, False)
    assert world.stored == [("a", {0: 3}), ("a", {0: 5})]
    assert world.gate.opened == 2
    assert world.tables["a"].counters["failed_attempts"] == 1
    assert world.writers.full == set()


def test_halves_are_made_on_the_thread_and_keep_the_token(world: World) -> None:
    under_way(world, count=4)
    refused = DatabaseError("no memory")
    refused.code = 241
    world.gate.end(refused)
    world.turn_until_blocked("a")
    world.gate.end(None, None)
    world.turn_until_stored(1, after_s=1.0)
    whole, left, right = world.tokens("a")
    assert (left, right) == (whole + "l", whole + "r")
    assert world.stored == [("a", {0: 4})]
    assert (world.tables["a"].counters["halved"], world.tables["a"].counters["code_241"]) == (1, 1)


def test_a_partition_lost_while_its_insert_is_under_way(world: World) -> None:
    world.read("a", 2, partition=1)
    world.read("a", 1, b"bad")
    world.read("a", 1, b"bad", partition=1)
    under_way(world)
    world.read("a", 2)
    world.read("a", 2, partition=1)
    world.writers.drop("a", 0)
    assert world.tables["a"].waiting == 9, "what is offered stays as it is, what only waits is forgotten"
    world.gate.end(None, None)
    world.turn_until_stored(2, after_s=1.0)
    assert world.stored == [("a", {1: 3}), ("a", {1: 5})], "the offsets are the new reader's, and so are dead letters"
    assert world.buried == [(1, 2)]


def test_partitions_revoked_while_an_insert_is_under_way_are_written_first(world: World) -> None:
    under_way(world)
    world.read("a", 2)
    world.read("b", 5)
    world.gate.end(None, None)
    world.writers.drain({"a"})
    assert world.stored == [("a", {0: 3}), ("a", {0: 5})]
    assert (world.tables["a"].waiting, world.tables["b"].waiting) == (0, 5), "the others are not its business"


def test_draining_ends_with_the_first_failure_and_keeps_the_offsets(world: World) -> None:
    under_way(world)
    world.read("a", 2)
    world.gate.end(AWAY)
    world.writers.drain("ab")
    assert world.stored == []
    assert world.tables["a"].waiting == 5
    world.writers.drop("a", 0)
    world.gate.end(None)
    world.writers.drain("a")
    assert world.stored == [], "its positions are the new reader's"


def test_stopping_while_inserts_are_under_way_and_in_the_queue_writes_everything(world: World) -> None:
    under_way(world)
    world.read("a", 1)
    world.read("b", 2)
    world.turn(1.0)
    world.gate.end(None, None, None)
    world.writers.drain("ab")
    assert world.stored == [("a", {0: 3}), ("a", {0: 4}), ("b", {0: 2})]
    assert len(world.gate.seen) == 3


def test_a_table_that_fails_does_not_keep_a_healthy_one_from_being_drained(world: World) -> None:
    under_way(world, "b")
    world.read("a", 2)
    world.turn(1.0)
    world.gate.end(AWAY, None, AWAY)
    world.writers.drain("ab")
    assert world.stored == [("a", {0: 2})]
    assert world.tables["b"].blocked
    assert [table for table, _ in world.gate.seen] == ["table_b", "table_a", "table_b"]


def test_of_a_server_that_hangs_two_attempts_are_waited_for(world: World) -> None:
    """Each may take a minute, and Kafka waits for a member for five."""
    under_way(world)
    world.read("b", 1)
    world.turn(1.0)  # in the queue
    world.gate.end(AWAY, AWAY)
    world.writers.drain("b")
    assert [table for table, _ in world.gate.seen] == ["table_a", "table_b"]
    first = world.tokens("b")
    world.turn(0.2)
    world.gate.end(None, None)
    world.turn_until_stored(2)
    assert world.tokens("b") == first * 2


def test_what_was_in_the_queue_when_draining_began_comes_again(world: World) -> None:
    under_way(world)
    world.read("b", 1)
    world.turn(1.0)
    world.gate.end(None)
    world.writers.drain("a")
    assert world.stored == [("a", {0: 3})]
    assert not world.tables["b"].under_way
    world.gate.end(None)
    world.turn()
    world.turn_until_stored(2)
    assert world.stored[1:] == [("b", {0: 1})]


def test_too_many_rejected_end_the_process_after_what_is_under_way(world: World) -> None:
    under_way(world, "b")
    world.read("a", 1)
    world.read("a", MAX_CONSECUTIVE + 5, b"bad")
    with pytest.raises(TooManyRejected):
        world.turn(1.0)
    world.gate.end(None, None)
    world.writers.drain("ab")
    assert world.stored == [("b", {0: 3}), ("a", {0: 1 + MAX_CONSECUTIVE})]
    assert len(world.buried) == MAX_CONSECUTIVE


def test_a_fault_of_ours_on_the_thread_ends_the_process(world: World) -> None:
    under_way(world)
    world.gate.end(RuntimeError("a bug"))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a bug"):
            world.writers.drain("a")
    with pytest.raises(RuntimeError, match="a bug"):
        world.turn()
    assert world.stored == []


def test_without_a_thread_inserts_are_made_at_once() -> None:
    world = World(background=False)
    world.gate.end(None, AWAY, None)
    world.read("a", 3)
    world.read("b", 1)
    world.turn(1.0)
    assert world.gate.threads == {threading.get_ident()}
    world.turn()
    assert (world.stored, world.tables["b"].blocked) == ([("a", {0: 3})], True)
    world.writers.drain("ab")
    assert world.stored == [("a", {0: 3}), ("b", {0: 1})]
    world.inserter.stop()
    assert (world.gate.opened, world.gate.closed) == (2, 2)
