"""A schedule is a string of bytes, so that drawing one costs little and shrinking it is hypothesis' own business."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat

from tests.simulation.world import STAGES, World

Op = Callable[[World, "Steps"], None]


class Steps:
    """Reads a schedule."""

    def __init__(self, data: bytes) -> None:
        self._bytes: Iterator[int] = chain(data, repeat(0))

    def take(self) -> int:
        """The next number, 0 to 255; 0 for ever after the end."""
        return next(self._bytes)


def play(world: World, data: bytes) -> None:
    """Let happen what a schedule says."""
    steps = Steps(data)
    # An operation takes up to three bytes.
    for _ in range(len(data) // 2):
        OPERATIONS[steps.take() % len(OPERATIONS)](world, steps)


def _produce(world: World, steps: Steps) -> None:
    world.produce(steps.take())


def _produce_again(world: World, steps: Steps) -> None:
    world.produce_again(steps.take())


def _garbage(world: World, steps: Steps) -> None:
    world.garbage(steps.take())


def _wait(world: World, steps: Steps) -> None:
    world.wait((1, 100, 500, 1100, 3000, 6000, 20_000, 70_000)[steps.take() % 8])


def _whose(choice: int) -> tuple[str, int | None]:
    """Of eight choices: five times the trace stage's, three times the learner's; every other time a zombie's."""
    return ("trace" if choice % 8 < 5 else "learn"), (choice >> 4 if choice & 8 else None)


def _on_worker(act: Callable[[World, str, int | None, Steps], None]) -> Op:
    def operation(world: World, steps: Steps) -> None:
        act(world, *_whose(steps.take()), steps)

    return operation


def _work(world: World, stage: str, zombie: int | None, steps: Steps) -> None:
    worker = world.worker(stage, zombie)
    if worker is None:
        world.assign(stage)
        return
    size = steps.take()
    worker.work(1 + size % 16, again=(size >> 4) % 4 if size & 128 else 0)
    if size & 64:
        worker.flow()


def _flow(world: World, stage: str, zombie: int | None, steps: Steps) -> None:
    if worker := world.worker(stage, zombie):
        worker.flow()


def _land(world: World, stage: str, zombie: int | None, steps: Steps) -> None:
    worker = world.worker(stage, zombie)
    if worker is None:
        return
    how = steps.take()
    places = worker.producer.places
    if places:
        worker.producer.land(places[how % len(places)], (1, 2, 4, 1000)[(how >> 4) % 4])
    if how & 128:
        worker.producer.settle()
        worker.resume()


def _stall(world: World, stage: str, zombie: int | None, steps: Steps) -> None:
    """One partition's broker is slow: all other records land, as far as the process gets without it."""
    worker = world.worker(stage, zombie)
    if worker is None:
        return
    how = steps.take()
    if how & 1:
        worker.work(1 + (how >> 4))
    if how & 2:
        world.wait(5000)
        worker.idle()
    slow = worker.producer.places[how % len(worker.producer.places)] if worker.producer.places else None
    for _ in range(4):
        for place in worker.producer.places:
            if place != slow:
                worker.producer.land(place, 1000)
        worker.producer.settle()
        worker.resume()
    if how & 4:
        worker.die()


def _idle(world: World, stage: str, zombie: int | None, steps: Steps) -> None:
    if worker := world.worker(stage, zombie):
        worker.idle()


def _checkpoint(world: World, stage: str, zombie: int | None, steps: Steps) -> None:
    if worker := world.worker(stage, zombie):
        world.wait(5000)
        worker.idle()


def _cut(world: World, stage: str, zombie: int | None, steps: Steps) -> None:
    """A checkpoint is cut off: the process dies in the midst of it, or somebody else gets the partition."""
    worker = world.worker(stage, zombie)
    if worker is None:
        return
    how = steps.take()
    world.wait(5000)
    worker.idle()
    for _ in range(how % 4):
        worker.producer.land_all()
        worker.resume()
    for place in worker.producer.places:
        worker.producer.land(place, (how >> 2) % 8)
    if how & 128:
        worker.die()
    else:
        world.assign(stage)


def _duel(world: World, stage: str, zombie: int | None, steps: Steps) -> None:
    """Two owners at once: the new one works and saves, and then the former one goes on with what it was doing."""
    former = world.worker(stage)
    how = steps.take()
    if how & 1:
        world.produce(how)
    latter = world.assign(stage)
    latter.flow()
    for worker in (latter, former):
        if worker is not None and how & (2 if worker is latter else 4):
            worker.work(1 + (how >> 5) if worker is latter else 16)
            worker.flow()
    if how & 8:
        world.wait(5000)
        latter.idle()
        latter.flow()
    if former is not None:
        former.idle()
        former.flow()
    if how & 16:
        world.assign(stage)


def _tick(world: World, stage: str, zombie: int | None, steps: Steps) -> None:
    if worker := world.worker(stage, zombie):
        worker.tick()


def _crash(world: World, stage: str, zombie: int | None, steps: Steps) -> None:
    worker = world.worker(stage, zombie)
    if worker is None:
        return
    how = steps.take()
    # Of each partition's queue some first records still reach the log.
    for place in worker.producer.places:
        worker.producer.land(place, how % 8)
        how >>= 2
    worker.die()


def _fail(world: World, stage: str, zombie: int | None, steps: Steps) -> None:
    if worker := world.worker(stage, zombie):
        worker.fail()


def _leave(world: World, stage: str, zombie: int | None, steps: Steps) -> None:
    if worker := world.worker(stage, zombie):
        worker.leave()


def _assign(world: World, stage: str, zombie: int | None, steps: Steps) -> None:
    world.assign(stage)


def _compact(world: World, steps: Steps) -> None:
    how = steps.take()
    if not how & 4:
        for stage in STAGES:
            if worker := world.worker(stage):
                world.wait(5000)
                worker.work(8)
                worker.idle()
                worker.flow()
    if not how & 2:
        world.wait(70_000)
    world.compact(drop_tombstones=bool(how & 1))


def _accident(world: World, steps: Steps) -> None:
    how = steps.take()
    stage = "trace" if how & 1 else "learn"
    if how < 96:
        world.reset(stage)
    elif how < 160:
        world.outage()
    else:
        world.damage(how >> 1)


OPERATIONS: list[Op] = [
    *[_produce] * 7, _produce_again, _garbage, *[_wait] * 2,
    *[_on_worker(_work)] * 7, *[_on_worker(_flow)] * 4, *[_on_worker(_land)] * 3, *[_on_worker(_stall)] * 3, _on_worker(_idle),
    *[_on_worker(_checkpoint)] * 2, *[_on_worker(_cut)] * 3, *[_on_worker(_duel)] * 2, _on_worker(_tick), *[_on_worker(_crash)] * 2, _on_worker(_fail),
    _on_worker(_leave), *[_on_worker(_assign)] * 2, *[_compact] * 2, _accident,
]  # fmt: skip
