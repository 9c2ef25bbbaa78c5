"""A simulated world: one log, the workers of both stages, the things that can happen to them, and how it must end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from streams.runner import StageRunner
from streams.state_log import StateDamaged
from tests.simulation.bursts import burst
from tests.simulation.log import Record, SimClock, SimLog
from tests.simulation.producer import SimProducer
from tests.simulation.store import STATE, SimStore, StateTail, read, unharmed
from tests.simulation.worker import INPUTS, TOPICS, Worker

STAGES = ("trace", "learn")
INPUT = (TOPICS.trace, 0)
COMPACTION_LAG_MS = 60_000
ZOMBIE_MS = 30_000
"""How long a worker that has lost its partition may go on without noticing; shorter than the compaction lag, as a
session is."""


class World:
    """The log and everybody at it.

    Parameters
    ----------
    make_store, make_runner
        The parts under test; broken ones show that the simulation sees it.

    Attributes
    ----------
    spare_superseded
        Whether compaction leaves alone what a former owner's late record has superseded, see `unharmed`.
    """

    def __init__(
        self, make_store: Callable[..., SimStore] = SimStore, make_runner: Callable[..., StageRunner] = StageRunner
    ) -> None:
        self.make_store = make_store
        self.make_runner = make_runner
        self.spare_superseded = True
        self.clock = SimClock()
        self.log = SimLog(self.clock)
        self.owners: dict[str, Worker | None] = dict.fromkeys(STAGES)
        self.zombies: dict[str, list[Worker]] = {stage: [] for stage in STAGES}
        self.seen: Counter[str] = Counter()
        self._tails = {stage: StateTail(self.log, stage) for stage in STAGES}
        self._committed = dict.fromkeys(STAGES, 0)
        self._generation = 0
        self._number = 0

    # -- agents

    def produce(self, choice: int) -> None:
        """Agents write a burst of events."""
        self._number += 1
        for value in burst(choice, self.clock.now_us(), self._number):
            self.log.append(INPUT, b"k", value)

    def produce_again(self, back: int) -> None:
        """A record comes a second time."""
        if records := self.log.records(INPUT):
            record = records[-1 - back % len(records)]
            self.log.append(INPUT, record.key, record.value)

    def garbage(self, choice: int) -> None:
        """A record that nobody can read, or a gap in the offsets."""
        if choice % 4 == 0:
            self.log.skip(INPUT, 1 + choice // 64)
        else:
            self.log.append(INPUT, b"k", (None, b"", b"garbage")[choice % 3])

    def wait(self, ms: int) -> None:
        """Time passes; whoever has lost his partition long ago has noticed by now."""
        self.clock.ms += ms
        for stage in STAGES:
            for worker in self.zombies[stage]:
                if self.clock.ms - worker.since_ms > ZOMBIE_MS:
                    worker.die()

    # -- workers

    def worker(self, stage: str, zombie: int | None = None) -> Worker | None:
        """The owner of a stage's partition, or somebody who thinks so."""
        self.zombies[stage] = [worker for worker in self.zombies[stage] if worker.alive]
        if zombie is not None and self.zombies[stage]:
            return self.zombies[stage][zombie % len(self.zombies[stage])]
        owner = self.owners[stage]
        if owner is not None and not owner.alive:
            self.owners[stage] = None
            if isinstance(owner.error, StateDamaged):
                self.reset(stage)
            return None
        return owner

    def assign(self, stage: str) -> Worker:
        """The group gives the partition to a new worker; the former one, if it lives, does not know."""
        former = self.worker(stage)
        if former is not None:
            former.since_ms = self.clock.ms
            self.zombies[stage].append(former)
            self.seen["zombies"] += 1
        self._generation += 1
        self.seen["owners"] += 1
        worker = self.owners[stage] = Worker(self, stage, self._generation)
        worker.take_over()
        return worker

    def acknowledged(self, worker: Worker, offset: int) -> None:
        """A batch was acknowledged: what the group commits must be in the state that a restart finds."""
        if self.owners[worker.stage] is not worker:
            return  # the group's coordinator refuses commits of former generations
        try:
            known = self._tails[worker.stage].advance().result().next_offset
        except StateDamaged:
            return  # a restart will say so and begin at the log's start
        assert known is not None, f"{worker.stage}: {offset} acknowledged, and nothing saved"
        assert known >= offset, f"{worker.stage}: {offset} acknowledged, {known} saved"
        self._committed[worker.stage] = max(offset, self._committed[worker.stage])
        self.seen["acknowledged"] += 1

    def restored(self, worker: Worker, position: int) -> None:
        """A worker has restored its state: it must know all that was ever acknowledged."""
        if self.owners[worker.stage] is worker:
            committed = self._committed[worker.stage]
            assert position >= committed, f"{worker.stage}: {committed} acknowledged, restored to {position}"
            self.seen["restored"] += 1

    # -- the state topic

    def compact(self, *, drop_tombstones: bool) -> None:
        """The broker compacts the state topic."""
        records = self.log.records((STATE, 0))
        clean = self.log.cleanable((STATE, 0), COMPACTION_LAG_MS)
        if self.spare_superseded:
            clean = unharmed(records, clean)
        self.log.compact((STATE, 0), clean, drop_tombstones=drop_tombstones)
        self.seen["compacted"] += len(records) - len(self.log.records((STATE, 0)))

    def kill(self, stage: str) -> None:
        """Kill all workers of a stage."""
        for worker in (*self.zombies[stage], self.owners[stage]):
            if worker is not None:
                worker.die()
        self.owners[stage] = None
        self.zombies[stage].clear()

    def reset(self, stage: str) -> None:
        """An operator makes the state void; that takes a group without members."""
        self.kill(stage)
        self._committed[stage] = 0
        producer = SimProducer(self.log)
        task = SimStore(self.log, producer).reset(stage, 0)
        task.send(None)
        producer.land_all()
        task.close()
        self.seen["resets"] += 1

    def damage(self, choice: int) -> None:
        """A bit of a state record flips."""
        records = self.log.records((STATE, 0))
        if records:
            record = records[choice % len(records)]
            assert record.key is not None
            value = record.value or b"?"
            flipped = bytes([value[0] ^ 1]) + value[1:]
            records[choice % len(records)] = Record(
                record.offset, record.timestamp_ms, record.key, flipped, record.headers
            )
            for tail in self._tails.values():
                tail.restart()
            self.seen["damaged"] += 1

    def outage(self) -> None:
        """Nobody works for hours: the group is forgotten, and its generations start again."""
        for stage in STAGES:
            self.kill(stage)
        self.clock.ms += 2 * 3600 * 1000
        self._generation = 0

    # -- the end

    def finish(self) -> None:
        """Let somebody process everything that is there, and leave in good order."""
        for stage in STAGES:
            try:
                read(self.log, stage)
            except StateDamaged:
                # Whoever works now would not find out, but the next one does.
                self.reset(stage)
            for zombie in self.zombies[stage]:
                zombie.die()
            while True:
                worker = self.worker(stage) or self.assign(stage)
                worker.flow()
                if not worker.alive:
                    continue
                if worker.done:
                    break
                worker.work(1000)
            worker.leave()
            worker.flow()
            assert worker.error is None, worker.error
            self.owners[stage] = None

    def records(self, topic: str) -> list[Any]:
        """Records of an output topic."""
        return self.log.records((topic, 0))


assert set(INPUTS) == set(STAGES)
