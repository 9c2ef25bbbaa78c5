"""A simulated worker process: the real runner of one stage, driven by hand from one await to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, cast

from learners.lineage import Head
from steersman.errors import SteersmanError
from steersman.topics import Topics
from streams.dead_letters import DlqLimit
from streams.edges import EdgeStage, tick_event
from streams.learn_edge import LearnEdge
from streams.learning_stage import LearningStage
from streams.metrics import Metrics
from streams.record_batch import RecordBatch
from streams.runner import StageRunner
from streams.trace_edge import TraceEdge
from streams.trace_stage import TraceStage
from tests.simulation.bursts import CODECS, DETECTORS, POLICIES, SETTINGS
from tests.simulation.producer import SimProducer
from tests.simulation.store import SimStore

if TYPE_CHECKING:
    from tests.simulation.world import World

TOPICS = Topics("sim")
INPUTS = {"trace": (TOPICS.trace, CODECS["trace_event"]), "learn": (TOPICS.reward, CODECS["reward"])}
CHECKPOINT_S = 5.0
CHECKPOINT_RECORDS = 12
_METRICS = Metrics()
_NOTHING_PUBLISHED: dict[str, Head] = {}


class Beside:
    """A coroutine that runs beside others, step by step; awaited and asked like a future."""

    def __init__(self, task: Coroutine[Any, Any, None]) -> None:
        self._task: Coroutine[Any, Any, None] | None = task
        self._error: SteersmanError | None = None

    def step(self) -> None:
        """Go on as far as it can."""
        if self._task is not None:
            try:
                self._task.send(None)
            except StopIteration:
                self._task = None
            except SteersmanError as error:
                self._task, self._error = None, error

    def done(self) -> bool:
        """Whether it has come to its end, good or bad."""
        return self._task is None

    def cancel(self) -> None:
        """End it here."""
        if self._task is not None:
            self._task.close()
            self._task = None

    def __await__(self) -> Generator[None]:
        """Wait for its end; raises what went wrong."""
        while not self.done():
            yield
        if self._error is not None:
            raise self._error


class Worker:
    """One process that got the partition of one stage.

    Attributes
    ----------
    alive
        False once it has failed, been killed, or given the partition up and gone.
    task
        What it is doing; None while it waits for records.
    """

    def __init__(self, world: World, stage: str, generation: int) -> None:
        self.stage = stage
        self.generation = generation
        self.since_ms = world.clock.ms
        self.producer = SimProducer(world.log)
        self.store: SimStore = world.make_store(world.log, self.producer)
        self.alive = True
        self.leaving = False
        self.error: SteersmanError | None = None
        self.task: Coroutine[Any, Any, Any] | None = None
        self._ticking: Coroutine[Any, Any, Any] | None = None
        self._beside: list[Beside] = []
        self._world = world
        topic, codec = INPUTS[stage]
        self.place = (topic, 0)
        self.runner: StageRunner = world.make_runner(
            stage,
            topic,
            make=self._make,
            codec=codec,
            outputs=self.producer,
            store=self.store,
            metrics=_METRICS,
            dead_letter_topic=TOPICS.dead_letter,
            limit=DlqLimit(),
            acknowledge=self._acknowledge,
            checkpoint_s=CHECKPOINT_S,
            checkpoint_records=CHECKPOINT_RECORDS,
            monotonic_s=world.clock.monotonic_s,
            spawn=self._spawn,
        )

    def _spawn(self, task: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        beside = Beside(task)
        self._beside.append(beside)
        return cast("asyncio.Future[None]", beside)

    def _make(self, partition: int) -> EdgeStage:
        # Every other process works by columns, so that each form of work takes over from the other.
        return make_edge(self.stage, self._world, columns_from=1 if self.generation % 2 else 1 << 30)

    def _acknowledge(self, batch: RecordBatch) -> None:
        self._world.acknowledged(self, batch.last + 1)

    # -- what the process does by itself

    def take_over(self) -> None:
        """Take the partition over."""

        async def assign() -> None:
            await self.runner.assign(0, self.generation)
            self._world.restored(self, self.runner.position(0) or 0)

        self._start(assign())

    def work(self, count: int, again: int = 0) -> None:
        """Process the next records of the input, and some before them again."""
        position = self._position()
        if position is None:
            return
        records = self._world.log.read(self.place, max(0, position - again), count + again)
        if records:
            batch = RecordBatch(
                *self.place,
                self.generation,
                0,
                records[0].offset,
                records[-1].offset,
                [record.offset for record in records],
                [record.value for record in records],
                [record.key for record in records],
                [record.headers for record in records],
                [record.timestamp_ms for record in records],
            )
            self._start(self.runner.handle(batch))

    def idle(self) -> None:
        """Do what is due with time."""
        if self._position() is not None:
            self._start(self.runner.idle())

    def tick(self) -> None:
        """Write a TICK if one is needed, beside whatever else is going on."""
        if self.alive and self._ticking is None and self.stage == "trace":
            now_us = self._world.clock.now_us()
            encode = CODECS["trace_event"].encode
            self._ticking = self.runner.tick(lambda p: encode(tick_event(TOPICS.trace, p, now_us, "default")), now_us)
            self.resume()

    def leave(self) -> None:
        """Give the partition up in good order."""
        if self._position() is not None:
            self.leaving = True
            self._start(self.runner.release([0]))

    # -- what happens to it

    def resume(self) -> None:
        """Go on as far as the deliveries that have been heard of allow."""
        self._step_beside()
        if self._ticking is not None and self._step(self._ticking):
            self._ticking = None
        if self.task is not None and self._step(self.task):
            self.task = None
            self._step_beside()  # a checkpoint that has just begun
            if self.leaving:
                self.die()

    def flow(self) -> None:
        """Let the broker answer until the process waits for records again."""
        while self.alive:
            self.producer.land_all()
            self.resume()
            if self.task is None and self._ticking is None and not self._beside and not self.producer.places:
                return

    def _step_beside(self) -> None:
        for beside in self._beside:
            beside.step()
        self._beside = [beside for beside in self._beside if not beside.done()]

    def fail(self) -> None:
        """The broker does not take the records in time."""
        self.producer.fail()
        self.resume()
        if self.alive and self.task is None:
            self.die()

    def die(self) -> None:
        """End here; what has not reached the log is gone."""
        self.alive = False
        self.producer.drop()
        for task in (self.task, self._ticking):
            if task is not None:
                task.close()
        for beside in self._beside:
            beside.cancel()
        self._beside = []
        self.task = self._ticking = None

    @property
    def done(self) -> bool:
        """Whether all of the log has been processed."""
        position = self.runner.position(0)
        return position is not None and not self._world.log.read(self.place, position, 1)

    def _position(self) -> int | None:
        return self.runner.position(0) if self.alive and self.task is None else None

    def _start(self, task: Coroutine[Any, Any, Any]) -> None:
        self.task = task
        self.resume()

    def _step(self, task: Coroutine[Any, Any, Any]) -> bool:
        try:
            task.send(None)
        except StopIteration:
            return True
        except SteersmanError as error:
            # As the app does: give everything up and stop; the process is started anew by somebody.
            self.error = error
            self.runner.abandon()
            self.die()
        return False


def make_edge(stage: str, world: World, *, columns_from: int = 1 << 30) -> EdgeStage:
    """The stage of partition 0 as the platform makes it."""
    if stage == "trace":
        return TraceEdge(
            TraceStage(POLICIES, 0, SETTINGS, detectors=DETECTORS), TOPICS, CODECS, columns_from=columns_from
        )
    # Solving the weights is what costs most here, so each process publishes once.
    stage_of_rewards = LearningStage(POLICIES, 0, 1, publish_interval_us=1 << 62, detectors=DETECTORS)
    return LearnEdge(stage_of_rewards, TOPICS, CODECS, world.clock, lambda: _NOTHING_PUBLISHED)
