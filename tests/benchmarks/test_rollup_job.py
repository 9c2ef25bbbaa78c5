"""The rollup job: what must come out is told apart from what does not, and all ways of doing it give the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.batch_agent import Rollup
from benchmarks.broker import Message
from benchmarks.payload import POLICIES
from benchmarks.peers.job import WINDOW_US, Window, decode, key_of
from benchmarks.peers.job import add as add_one
from benchmarks.rollup_job import PARTITIONS, Job, WrongResult, check, from_rollups, make_job
from learners.policies_file import load_policies
from steersman.codec import Codec
from streams.record_batch import RecordBatch
from streams.trace_stage import TraceStage

NOW_US = 1_795_000_000_000_000
COUNT = 3000


@pytest.fixture(scope="module")
def job() -> Job:
    return make_job(1, COUNT, NOW_US)


def of_partition(messages: Sequence[Message], partition: int) -> list[Message]:
    return [message for message in messages if message.partition == partition]


def as_batch(messages: Sequence[Message]) -> RecordBatch:
    count = len(messages)
    return RecordBatch(
        "t", messages[0].partition, 1, 0, 0, count - 1, list(range(count)), [m.value for m in messages],
        [m.key for m in messages], [()] * count, [m.timestamp_ms for m in messages],
    )  # fmt: skip


def test_a_key_is_in_one_partition_and_every_partition_is_closed(job: Job) -> None:
    messages = job.first(COUNT)
    homes: dict[bytes, set[int]] = {}
    for message in messages:
        homes.setdefault(message.key, set()).add(message.partition)
    assert {len(partitions) for partitions in homes.values()} == {1}
    assert [m.partition for m in messages[-PARTITIONS:]] == list(range(PARTITIONS))
    assert all(m.timestamp_ms * 1000 > job.closed_from_us for m in job.closing)


def test_peers_count_what_is_expected(job: Job) -> None:
    windows: dict[Window, list[int]] = {}
    for message in job.first(COUNT):
        event = decode(message.value)
        window = key_of(event), event["ts"] - event["ts"] % WINDOW_US
        windows[window] = add_one(windows.get(window, [0, 0, 0]), event)
    check("peers", job.expected(COUNT), windows, job.closed_from_us)
    with pytest.raises(WrongResult, match="peers: window"):
        check("peers", job.expected(COUNT - 1), windows, job.closed_from_us)


def test_columns_count_what_is_expected(job: Job) -> None:
    rollup = Rollup()
    for partition in range(PARTITIONS):
        messages = of_partition(job.first(COUNT), partition)
        rollup.add(as_batch(messages[:500]))
        rollup.add(as_batch(messages[500:]))
    found = {(key, start): total for key, start, *total in rollup.found()}
    check("columns", job.expected(COUNT), found, job.closed_from_us)


def test_a_record_that_eats_into_its_neighbour_is_noticed(job: Job) -> None:
    batch = as_batch(of_partition(job.first(COUNT), 0)[:3])
    first, second = batch.values[0], batch.values[1]
    assert first is not None
    assert second is not None
    batch.values[0], batch.values[1] = first + b"\x00", second[:-1]
    with pytest.raises(ValueError, match="not to be read by columns"):
        Rollup().add(batch)


def test_the_trace_stage_counts_what_is_expected(job: Job) -> None:
    decode_event, encode = Codec("trace_event").decode, Codec("rollup").encode
    rollups: list[bytes] = []
    for partition in range(PARTITIONS):
        stage = TraceStage(load_policies(POLICIES), partition)
        messages = of_partition(job.first(COUNT), partition)
        out = stage.process([(n, m.timestamp_ms * 1000, decode_event(m.value)) for n, m in enumerate(messages)])
        assert out.rejected == []
        rollups += [encode(record) for record in out.rollups]
    check("stage", job.expected(COUNT), from_rollups(rollups), job.closed_from_us)


def test_a_missing_window_and_one_too_many_are_wrong(job: Job) -> None:
    expected = job.expected(COUNT)
    first = next(iter(expected))
    with pytest.raises(WrongResult, match="is None"):
        check("s", expected, {key: total for key, total in expected.items() if key != first}, job.closed_from_us)
    with pytest.raises(WrongResult, match="nobody"):
        check("s", expected, expected | {("nobody", first[1]): [1, 0, 0]}, job.closed_from_us)
    # Windows of the closing records are nobody's business.
    check("s", expected, expected | {("nobody", job.closed_from_us): [1, 0, 0]}, job.closed_from_us)


def test_a_window_that_only_counts_rewards_is_none_of_the_jobs(job: Job) -> None:
    decode_event, encode = Codec("trace_event").decode, Codec("rollup").encode
    messages = of_partition(job.first(COUNT), 0)
    stage = TraceStage(load_policies(POLICIES), 0)
    out = stage.process([(n, m.timestamp_ms * 1000, decode_event(m.value)) for n, m in enumerate(messages)])
    rollup = out.rollups[0]
    assert from_rollups([encode(rollup)])
    assert not from_rollups([encode(rollup), encode(rollup | {"version": rollup["version"] + 1, "events": 0})])
