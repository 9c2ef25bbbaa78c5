"""What the sink takes of what its consumer hands out: records that come late are waited for."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from serving.gaps import TRIES
from sinks.intake import Intake
from sinks.tables import Message


class Record:
    """A message as confluent-kafka hands it out."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self.place = topic, partition, offset

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def offset(self) -> int:
        return self.place[2]

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"v"

    def headers(self) -> list[Any]:
        return []

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_800_000_000_000


class Sought:
    """A consumer that notes where it is sent."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.seeks: list[tuple[str, int, int]] = []
        self._refuses = refuses

    def seek(self, place: TopicPartition) -> None:
        if self._refuses:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.seeks.append((place.topic, place.partition, place.offset))


def bench(consumer: Sought) -> tuple[Intake, list[tuple[str, int, int]]]:
    taken: list[tuple[str, int, int]] = []

    def add(message: Message) -> None:
        taken.append((message.topic, message.partition, message.offset))

    return Intake(consumer, "nowhere:1", add, {"trace"}), taken


def records(topic: str, partition: int, *offsets: int) -> list[Record]:
    return [Record(topic, partition, offset) for offset in offsets]


def test_records_that_come_late_are_read_again_and_the_rest_of_the_partition_with_them() -> None:
    consumer = Sought()
    intake, taken = bench(consumer)
    intake.take_all(
        [*records("trace", 0, 0, 1), *records("trace", 1, 5), *records("trace", 0, 4, 5), *records("trace", 1, 6)]
    )
    assert consumer.seeks == [("trace", 0, 2)]
    assert taken == [("trace", 0, 0), ("trace", 0, 1), ("trace", 1, 5), ("trace", 1, 6)]
    intake.take_all(records("trace", 0, 2, 3, 4, 5))
    assert taken[4:] == [("trace", 0, n) for n in (2, 3, 4, 5)]
    assert len(consumer.seeks) == 1


def test_what_does_not_come_is_given_up() -> None:
    consumer = Sought()
    intake, taken = bench(consumer)
    intake.take_all(records("trace", 0, 0))
    for _ in range(TRIES):
        intake.take_all(records("trace", 0, 9, 10))
    assert consumer.seeks == [("trace", 0, 1)] * TRIES
    intake.take_all(records("trace", 0, 9, 10))
    assert [offset for *_, offset in taken] == [0, 9, 10]


def test_a_partition_that_leaves_is_taken_as_it_comes() -> None:
    intake, taken = bench(Sought(refuses=True))
    intake.take_all(records("trace", 0, 0, 5))
    assert [offset for *_, offset in taken] == [0, 5]


@pytest.mark.parametrize("forgotten", [True, False])
def test_gaps_of_compacted_topics_and_of_a_new_assignment_are_none(forgotten: bool) -> None:
    consumer = Sought()
    intake, taken = bench(consumer)
    if forgotten:
        intake.take_all(records("trace", 0, 0))
        intake.forget("trace", 0)
        intake.take_all(records("trace", 0, 70))
    else:
        intake.take_all(records("policy", 0, 0, 7, 9))
    assert consumer.seeks == []
    assert len(taken) == (2 if forgotten else 3)
