"""The sink's own loop, its consumer and a broker, with a ClickHouse that is slow."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer, TopicPartition

from sinks.settings import SinkSettings
from sinks.sink import _MAX_POLL, LEAVING, Sink
from steersman.kafka_config import producer_config
from steersman.topics import Topics
from tests.mock_kafka import mock_kafka
from tests.sinks.gate import Gate
from tests.sinks.records import event

TOTAL, ROWS = 16_000, 500


@pytest.fixture(scope="module")
def brokers() -> Iterator[str]:
    with mock_kafka() as address:
        yield address


def until(sink: Sink, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        sink.turn()


def committed(sink: Sink, place: TopicPartition) -> int:
    offset = sink._consumer.committed([place], timeout=10)[0].offset
    assert isinstance(offset, int)
    return offset


def test_it_reads_until_a_second_batch_is_full_and_commits_what_is_stored(
    brokers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics, gate = Topics(f"r{uuid.uuid4().hex[:8]}"), Gate()
    monkeypatch.setattr("sinks.sink.connect", lambda url: gate.connect())
    producer = Producer(producer_config(brokers))
    for i in range(TOTAL):
        producer.produce(topics.trace, event(i), partition=0)
        if i % ROWS == 0:
            assert producer.flush(20) == 0
    assert producer.flush(20) == 0
    sink = Sink(SinkSettings(brokers=brokers, topic_prefix=topics.prefix, sink_flush_rows=ROWS, sink_flush_s=60))
    place, writer = TopicPartition(topics.trace, 0, 0), sink.writers[topics.trace]
    sink._consumer.assign([place])
    try:
        until(sink, lambda: writer.full)
        gate.begun()
        held = writer.waiting
        assert 2 * ROWS <= held <= 2 * (ROWS + _MAX_POLL) < TOTAL
        for _ in range(10):
            sink.turn()
        assert (writer.waiting, len(gate.seen)) == (held, 1), "it is not read on, and nothing is inserted beside"
        assert committed(sink, place) < 0
        gate.end(*[None] * TOTAL)
        until(sink, lambda: writer.counters["rows"] + writer.waiting == TOTAL and writer.waiting < ROWS)
        sink._writers.drain(sink.writers)
        assert writer.counters["rows"] == TOTAL
        sink._consumer.commit(asynchronous=False)
        assert committed(sink, place) == TOTAL
    finally:
        gate.end(*[None] * TOTAL)
        sink._consumer.close()
        sink._inserter.stop()


class Silent:
    """A consumer whose broker does not answer when it wants to leave."""

    def __init__(self) -> None:
        self.answer = threading.Event()

    def close(self) -> None:
        self.answer.wait(60)


def test_a_broker_that_is_silent_is_not_waited_for_when_the_sink_leaves(brokers: str) -> None:
    sink, silent = Sink(SinkSettings(brokers=brokers, topic_prefix="silent")), Silent()
    sink._consumer.close()
    sink._consumer = silent
    assert not sink.leave(0.05)
    assert LEAVING in {thread.name for thread in threading.enumerate()}
    silent.answer.set()
    assert sink.leave(20)
    sink._inserter.stop()


def test_what_goes_wrong_when_the_sink_leaves_is_said(brokers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, silent = Sink(SinkSettings(brokers=brokers, topic_prefix="silent")), Silent()
    sink._consumer.close()

    def fail() -> None:
        raise RuntimeError("in a callback")

    monkeypatch.setattr(silent, "close", fail)
    sink._consumer = silent
    with pytest.raises(RuntimeError, match="in a callback"):
        sink.leave(20)
    sink._inserter.stop()
