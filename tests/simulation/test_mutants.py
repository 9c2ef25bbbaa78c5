"""Broken platforms that the simulation must see through: whoever changes it learns here when it has gone blind."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Mapping

import pytest

from streams.record_batch import RecordBatch
from streams.runner import StageRunner
from streams.slot import Slot
from streams.state_log import FENCE, MARKER, META, Recovered, marker
from tests.simulation.checks import check
from tests.simulation.schedule import play
from tests.simulation.store import SimStore, read
from tests.simulation.world import World

LIMIT = 400
"""Schedules within which each of them must be caught."""


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Gaps in the log are errors to the runner, and here they are many."""
    caplog.set_level(logging.CRITICAL, "steersman.streams")


class DoesNotWaitForOutputs(StageRunner):
    """Saves and acknowledges before the outputs are delivered."""

    async def _checkpoint(self, slot: Slot) -> None:
        slot.sending = deque()
        await super()._checkpoint(slot)


class AcknowledgesAtOnce(StageRunner):
    """Acknowledges a batch when it arrives."""

    async def handle(self, batch: RecordBatch) -> None:
        self._acknowledge(batch)
        await super().handle(batch)


class MarkerFirst(SimStore):
    """Writes the marker before the keys."""

    async def save(self, stage: str, partition: int, dirty: Mapping[str, bytes | None], next_offset: int) -> None:
        owner = self._owners[stage, partition]
        meta = dirty.get(META)
        if meta is not None:
            self._metas[stage, partition] = meta
        value = marker(next_offset, self._metas.get((stage, partition)))
        await self._outputs.deliver([self._record(stage, partition, MARKER, value, owner)])
        keys = [self._record(stage, partition, key, value, owner) for key, value in dirty.items() if key != META]
        await self._outputs.deliver(keys)


class KeysInAnyOrder(SimStore):
    """Writes the dirty keys in an order of its own."""

    async def save(self, stage: str, partition: int, dirty: Mapping[str, bytes | None], next_offset: int) -> None:
        await super().save(stage, partition, dict(reversed(dirty.items())), next_offset)


class NoFences(SimStore):
    """All writers look the same, so that a former owner's late records count."""

    async def take_over(self, stage: str, partition: int, input_topic: str, generation: int = 0) -> Recovered:
        await self._outputs.deliver([self._record(stage, partition, FENCE, b"1-x", "1-x")])
        recovered = read(self._log, stage)
        self._owners[stage, partition] = "1-x"
        if META in recovered.items:
            self._metas[stage, partition] = recovered.items[META]
        return recovered


def caught_after(make: Callable[[], World]) -> int | None:
    """Schedules until a check fails; None when none does."""
    for seed in range(LIMIT):
        world = make()
        try:
            play(world, random.Random(seed).randbytes(80))
            world.finish()
            check(world)
        except Exception:
            return seed
    return None


@pytest.mark.parametrize("runner", [DoesNotWaitForOutputs, AcknowledgesAtOnce])
def test_a_broken_runner_is_caught(runner: type[StageRunner]) -> None:
    assert caught_after(lambda: World(make_runner=runner)) is not None


@pytest.mark.parametrize("store", [MarkerFirst, KeysInAnyOrder, NoFences])
def test_a_broken_store_is_caught(store: type[SimStore]) -> None:
    assert caught_after(lambda: World(make_store=store)) is not None


def test_the_platform_itself_is_not_caught() -> None:
    assert caught_after(World) is None
