"""A worker that gives up in the middle of something: whatever is under way ends there, and nothing is taken back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import pytest

from streams.outputs import OutputRecord
from tests.simulation.producer import Delivery, SimProducer
from tests.simulation.store import STATE
from tests.simulation.worker import Worker
from tests.simulation.world import World


class _Space:
    """What a coroutine waits for that finds the producer's queue full."""

    def __await__(self):  # type: ignore[no-untyped-def]
        yield self


class FullProducer(SimProducer):
    """Lets who sends wait while its queue is full, as librdkafka's does."""

    full = False

    async def send(self, records: Sequence[OutputRecord]) -> Delivery:  # type: ignore[override]
        while self.full and records:
            await _Space()
        return await super().send(records)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "steersman.streams")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def worker(world: World, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """The trace stage's, with a checkpoint on its way whose outputs the broker has not taken yet."""
    monkeypatch.setattr("tests.simulation.worker.SimProducer", FullProducer)
    worker = world.assign("trace")
    worker.flow()
    for choice in range(4):
        world.produce(choice)
    worker.work(3)
    assert worker.task is None
    world.wait(5000)
    worker.idle()
    world.garbage(1)
    assert worker._beside, "a checkpoint is on its way"
    assert worker.producer.places, "and waits for its outputs"
    return worker


def checkpoints(world: World) -> int:
    return len(world.log.records((STATE, 0)))


def begin_a_batch(worker: Worker) -> FullProducer:
    producer = cast(FullProducer, worker.producer)
    producer.full = True
    worker.work(1000)  # the last record is a dead letter, to be sent
    assert worker.task is not None, "it waits for space in the producer's queue"
    return producer


def go_on(worker: Worker, producer: FullProducer) -> None:
    producer.full = False
    for _ in range(5):
        producer.land_all()
        worker.resume()
    assert worker.task is None


def test_a_batch_under_way_ends_and_its_partition_is_not_taken_back(world: World, worker: Worker) -> None:
    producer = begin_a_batch(worker)
    before, acknowledged = checkpoints(world), world.seen["acknowledged"]
    worker.runner.abandon()  # as when another task of the worker fails
    assert all(beside.done() for beside in worker._beside), (
        "also the checkpoint of the partition that is being worked on"
    )
    go_on(worker, producer)
    assert worker.runner.partitions == []
    assert (checkpoints(world), world.seen["acknowledged"]) == (before, acknowledged), (
        "nothing is saved after giving up"
    )
    worker.work(3)
    assert worker.task is None, "further batches are nobody's"


def test_the_same_without_giving_up_goes_on(world: World, worker: Worker) -> None:
    producer = begin_a_batch(worker)
    before = checkpoints(world)
    go_on(worker, producer)
    assert worker.runner.partitions == [0]
    assert checkpoints(world) > before


def test_a_failed_batch_takes_its_checkpoint_along(world: World, worker: Worker) -> None:
    begin_a_batch(worker)
    before = checkpoints(world)
    task = worker.task
    assert task is not None
    with pytest.raises(RuntimeError, match="broken"):
        task.throw(RuntimeError("broken"))
    worker.runner.abandon()
    assert all(beside.done() for beside in worker._beside)
    worker.task = None
    for _ in range(5):
        worker.producer.land_all()
        worker.resume()
    assert checkpoints(world) == before


def test_a_wait_for_a_checkpoint_begins_no_other_after_giving_up(world: World, worker: Worker) -> None:
    for choice in range(12):
        world.produce(choice)
    for _ in range(12):
        worker.work(16)
        if worker.task is not None:
            break
    assert worker.task is not None, "so much is unsaved that it waits for the checkpoint on its way"
    before = worker.runner.checkpoints
    worker.runner.abandon()
    for _ in range(8):
        worker.producer.land_all()
        worker.resume()
    assert worker.task is None
    assert worker.runner.partitions == []
    assert worker.runner.checkpoints == before + 1, "the one that was waited for, and no other"
