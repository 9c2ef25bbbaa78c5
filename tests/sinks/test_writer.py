from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.batch import Batch, Rejected
from sinks.tables import Message, Row, Table, tables
from sinks.writer import MANY_ROWS, MAX_CONSECUTIVE, Backoff, TooManyRejected, Writer
from steersman.codec import Codec
from steersman.errors import DecodeError, InvalidRecord, Unreachable
from steersman.topics import Topics

PAIRS = Table("pairs", "t", (("a", "Int64"), ("s", "String"), ("kafka_topic", "String"), ("kafka_partition", "Int32"), ("kafka_offset", "Int64"), ("kafka_timestamp", "DateTime64(3, 'UTC')")), lambda m: pair(m))  # fmt: skip


def pair(message: Message) -> Row | None:
    """`bad` cannot be decoded, `skip` is not stored, `text` is of the wrong type for its column."""
    value = (message.value or b"").decode()
    if value == "bad":
        raise DecodeError("magic", "bad")
    if value == "skip":
        return None
    stamp = {"kafka_topic": message.topic, "kafka_partition": message.partition, "kafka_offset": message.offset, "kafka_timestamp": 7}  # fmt: skip
    return {"a": "text" if value == "text" else int(value), "s": None, **stamp}


def message(offset: int, value: str = "1", partition: int = 0) -> Message:
    return Message("t", partition, offset, None, value.encode())


def writer(reject: Callable[[list[Rejected]], None] | None = None, **options: Any) -> Writer:
    limits = {"flush_s": 1.0, "flush_rows": 100, "flush_bytes": 1 << 20, **options}
    return Writer(PAIRS, Backoff(random.Random(0)), reject or (lambda rejected: None), **limits)


@pytest.fixture
def pairs(client: Client) -> Client:
    client.command(
        "CREATE TABLE pairs (a Int64, s String, kafka_topic String, kafka_partition Int32, kafka_offset Int64, "
        "kafka_timestamp DateTime64(3, 'UTC')) "
        "ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 10"
    )
    return client


def test_batch_is_due_by_age_rows_or_bytes():
    by_age, by_rows, by_bytes = writer(), writer(flush_rows=2), writer(flush_bytes=5)
    by_age.add(message(0), 10.0)
    assert not by_age.due(10.9)
    assert by_age.due(11.0)
    by_age_of_many = writer(flush_rows=2 * MANY_ROWS)
    for offset in range(MANY_ROWS):
        by_age_of_many.add(message(offset), 10.0)
    assert not by_age_of_many.due(11.4)
    assert by_age_of_many.due(11.5)
    by_rows.add(message(0), 0.0)
    assert not by_rows.due(0.0)
    by_rows.add(message(1), 0.0)
    assert by_rows.due(0.0)
    by_bytes.add(message(0, "12345"), 0.0)
    assert by_bytes.due(0.0)
    assert not writer().due(1e9)


def test_failed_batch_is_offered_again_unchanged_then_what_came_meanwhile(pairs: Client):
    w = writer()
    w.add(message(0), 0.0)
    w.add(message(1, "2"), 0.0)

    def away() -> Any:
        raise Unreachable("ClickHouse", "wait")

    assert w.flush(away, 1.0) == {}
    assert w.blocked
    assert "cannot reach ClickHouse" in w.last_error
    w.add(message(2, "3"), 1.0)
    assert (w.due(1.05), w.due(1.3), w.waiting) == (False, True, 3)
    # The server took it, but the reply was lost: the same batch comes with the same token.
    assert w.flush(lambda: _Forgetful(pairs), 2.0) == {}
    assert w.flush(lambda: pairs, 3.0) == {0: 2}
    assert not w.blocked
    assert w.flush(lambda: pairs, 3.0) == {0: 3}
    assert pairs.query("SELECT count(), sum(a), any(s) FROM pairs").first_row == (3, 6, "")
    assert (w.counters["rows"], w.counters["failed_attempts"], w.waiting) == (3, 2, 0)


class _Forgetful:
    """A client whose reply gets lost after the server has done the work."""

    def __init__(self, client: Client):
        self._client = client

    def insert(self, table: str, data: Any, **options: Any) -> None:
        self._client.insert(table, data, **options)
        raise DatabaseError("the connection was closed")


def test_what_does_not_fit_a_column_is_found_and_rejected(pairs: Client):
    seen: list[Rejected] = []
    w = writer(seen.extend)
    for i in range(20):
        w.add(message(i, "text" if i in (3, 17) else "bad" if i == 5 else "skip" if i == 9 else str(i)), 0.0)
    assert w.flush(lambda: pairs, 0.0) == {0: 20}
    assert {r.message.timestamp_ms for r in seen if r.error.reason == "bad_value"} == {7}, "the record's own time"  # type: ignore[attr-defined]
    assert sorted((r.message.offset, r.error.reason) for r in seen) == [
        (3, "bad_value"),
        (5, "magic"),
        (17, "bad_value"),
    ]  # type: ignore[attr-defined]
    assert pairs.query("SELECT count(), sum(a) FROM pairs").first_row == (16, sum(range(20)) - 3 - 5 - 9 - 17)
    assert (w.counters["rejected"], w.counters["skipped"]) == (3, 1)


def test_undelivered_dead_letters_hold_the_offsets_back(pairs: Client):
    def refuse(rejected: list[Rejected]) -> None:
        if rejected:
            raise Unreachable("the dead-letter topic", "")

    w = writer(refuse)
    w.add(message(0, "bad"), 0.0)
    w.add(message(1), 0.0)
    assert w.flush(lambda: pairs, 0.0) == {}
    assert w.blocked


def test_too_many_in_a_row_stop_the_sink(pairs: Client):
    seen: list[Rejected] = []
    w = writer(seen.extend)
    for i in range(MAX_CONSECUTIVE):
        w.add(message(i, "bad"), 0.0)
    assert w.flush(lambda: pairs, 0.0) == {0: MAX_CONSECUTIVE}
    w.add(message(MAX_CONSECUTIVE, "bad"), 0.0)
    w.add(message(MAX_CONSECUTIVE + 1), 0.0)
    with pytest.raises(TooManyRejected, match=r"partition 0, offset 1000.*magic"):
        w.flush(lambda: pairs, 0.0)
    assert (w.waiting, len(seen)) == (0, MAX_CONSECUTIVE), "what came after them is not read"
    w = writer()
    for i in range(3 * MAX_CONSECUTIVE):
        w.add(message(i, "bad" if i % 2 else "1"), 0.0)
    assert w.flush(lambda: pairs, 0.0) == {0: 3 * MAX_CONSECUTIVE}


def test_what_came_before_too_many_is_written_still(pairs: Client):
    seen: list[Rejected] = []
    w = writer(seen.extend)
    w.add(message(0), 0.0)
    for i in range(1, MAX_CONSECUTIVE + 50):
        w.add(message(i, "bad", partition=i % 2), 0.0)
    with pytest.raises(TooManyRejected, match=rf"partition 1, offset {MAX_CONSECUTIVE + 1}\b"):
        w.flush(lambda: pairs, 0.0)
    assert w.waiting == MAX_CONSECUTIVE + 1
    assert w.flush(lambda: pairs, 0.0) == {0: MAX_CONSECUTIVE + 1, 1: MAX_CONSECUTIVE}
    assert len(seen) == MAX_CONSECUTIVE
    assert pairs.command("SELECT count() FROM pairs") == 1


def test_dropped_partition_is_neither_inserted_nor_committed(pairs: Client):
    w = writer()
    w.add(message(0), 0.0)
    w.add(message(7, "5", partition=1), 0.0)
    w.drop(0)
    assert w.waiting == 1
    assert w.flush(lambda: pairs, 0.0) == {1: 8}
    assert pairs.command("SELECT sum(a) FROM pairs") == 5


def test_partition_lost_between_two_attempts_changes_neither_rows_nor_token(pairs: Client):
    """The insert had been done, only its reply was lost: without its token the rows would be there twice."""
    seen: list[Rejected] = []
    w = writer(seen.extend)
    for offset, value in enumerate(["1", "bad", "2"]):
        w.add(message(offset, value), 0.0)
        w.add(message(offset, value, partition=1), 0.0)
    assert w.flush(lambda: _Forgetful(pairs), 0.0) == {}
    w.add(message(3, "9"), 0.0)
    w.drop(0)
    assert w.flush(lambda: pairs, 1.0) == {1: 3}, "the offsets of the lost partition are the new reader's"
    assert [(r.message.partition, r.message.offset) for r in seen] == [(1, 1)], "and so are its dead letters"
    assert pairs.query("SELECT count(), sum(a) FROM pairs").first_row == (4, 6)
    assert w.waiting == 0, "what had not been offered is forgotten"


def test_undelivered_dead_letters_do_not_bring_the_insert_again(pairs: Client):
    inserts, sent = [], []

    def store() -> Any:
        inserts.append(1)
        return pairs

    def refuse_once(rejected: list[Rejected]) -> None:
        sent.append(len(rejected))
        if len(sent) == 1:
            raise Unreachable("the dead-letter topic", "")

    w = writer(refuse_once)
    w.add(message(0, "bad"), 0.0)
    w.add(message(1), 0.0)
    assert w.flush(store, 0.0) == {}
    assert w.flush(store, 1.0) == {0: 2}
    assert (len(inserts), sent, w.counters["inserts"], w.counters["rejected"]) == (1, [1, 1], 1, 1)


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=8)), min_size=1, max_size=20), st.data())
@settings(derandomize=True, deadline=None, max_examples=80)
def test_token_is_a_function_of_offsets_and_bytes(log: list[tuple[int, bytes]], data: st.DataObject):
    def fill(entries: list[tuple[int, bytes]], table: str = "x", at: int = -1) -> Batch:
        batch = Batch(table, 0.0)
        offsets = [0, 0, 0]
        for partition, value in entries:
            batch.add(Message("t", partition, offsets[partition], None, value, timestamp_ms=at))
            offsets[partition] += 1
        return batch

    token = fill(log).token("t")
    # The order in which partitions were read does not matter, the order within a partition is the log's.
    assert fill(sorted(log, key=lambda e: e[0])).token("t") == token
    assert fill(log).token("u") != token
    assert fill(log, "y").token("t") != token
    i = data.draw(st.integers(0, len(log) - 1))
    assert fill([*log[:i], (log[i][0], log[i][1] + b"!"), *log[i + 1 :]]).token("t") != token
    assert fill(log[:-1]).token("t") != token
    assert fill(log, at=1).token("t") != token, "a topic created anew holds the same bytes at the same offsets"


def test_pauses_double_with_jitter_up_to_a_bound():
    backoff = Backoff(random.Random(1), base_s=0.2, max_s=3.0)
    pauses = [backoff.failed() for _ in range(50)]
    for n, pause in enumerate(pauses):
        bound = min(3.0, 0.2 * 2**n)
        assert bound / 2 <= pause <= bound
    backoff.reset()
    assert backoff.failed() <= 0.2


def test_times_out_of_range_are_refused(record: Callable[..., Any]):
    table = next(t for t in tables(Topics()) if t.name == "rewards")
    for field in ("ts", "decided_at"):
        value = Codec("reward").encode(record("reward", **{field: 9 * 10**18}))
        with pytest.raises(InvalidRecord, match=f"time_out_of_range: {field}"):
            table.row(Message(table.topic, 0, 0, None, value))


def test_only_inserts_of_events_skip_the_search_for_rows_of_one_key(record: Callable[..., Any]):
    """Their key has the offset; of a window, an insert may bring ten versions."""
    for name, contract in (("trace_events", "trace_event"), ("rollups", "rollup")):
        sent: list[dict[str, Any]] = []
        store = SimpleNamespace(raw_insert=lambda table, *, settings, sent=sent, **options: sent.append(settings))
        table = next(t for t in tables(Topics()) if t.name == name)
        w = Writer(table, Backoff(random.Random(0)), lambda rejected: None, flush_s=1, flush_rows=1, flush_bytes=1)
        w.add(Message(table.topic, 0, 0, None, Codec(contract).encode(record(contract))), 0.0)
        assert w.flush(lambda store=store: store, 0.0) == {0: 1}  # type: ignore[misc]
        assert [s.get("optimize_on_insert") for s in sent] == [0 if name == "trace_events" else None]


def test_every_ordinary_column_type_is_derived_from_the_contract():
    found = {name: dict(t.columns) for t in tables(Topics()) for name in [t.name]}
    assert found["trace_events"]["ts"] == "DateTime64(6, 'UTC')"
    assert found["trace_events"]["cost_micro_usd"] == "Nullable(Int64)"
    assert found["trace_events"]["mode"] == "String"
    assert found["rollups"]["histogram_count"] == "Array(Int64)"
