"""What a worker does when partitions of its consumer group come and go: restore, checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from faust.types import TP

from streams.metrics import Metrics
from streams.runner import StageRunner
from streams.topic_watch import TopicWatch

_READ_PUBLISHED_S = 60.0


class Rebalance:
    """The worker's `streams.transport.PartitionHooks`.

    Parameters
    ----------
    runners
        By input topic; may be filled later.
    watches
        What is read to its end before a partition of the reward topic is taken over.
    reward_topic
        Its name.
    metrics
        Where rebalances are counted.
    give_up
        Called with what went wrong: nothing that is not saved counts from then on.

    Attributes
    ----------
    settled
        Whether partitions have been assigned, if only none, and are restored.
    """

    def __init__(
        self,
        runners: Mapping[str, StageRunner],
        watches: Sequence[TopicWatch],
        reward_topic: str,
        metrics: Metrics,
        give_up: Callable[[BaseException], None],
    ) -> None:
        self._runners = runners
        self._watches = watches
        self._reward_topic = reward_topic
        self._metrics = metrics
        self._give_up = give_up
        self.settled = False

    async def before_revoke(self, partitions: Iterable[TP]) -> None:
        """Checkpoint these partitions and give them up."""
        try:
            for topic, numbers in _by_topic(partitions).items():
                if topic in self._runners:
                    await self._runners[topic].release(numbers)
        except Exception as error:
            self._give_up(error)

    async def before_assign(self, partitions: Iterable[TP], generation: int) -> None:
        """Take these partitions over and restore their state."""
        self._metrics.rebalances.inc()
        self.settled = False
        partitions = list(partitions)
        tasks = [
            self._runners[topic].assign(number, generation)
            for topic, numbers in _by_topic(partitions).items()
            if topic in self._runners
            for number in numbers
        ]
        try:
            if any(tp.topic == self._reward_topic for tp in partitions):
                # A learner is not to publish before it knows what is published.
                await asyncio.gather(
                    *(asyncio.to_thread(watch.read_to_end, _READ_PUBLISHED_S) for watch in self._watches)
                )
            await asyncio.gather(*tasks)
            self.settled = True
        except Exception as error:
            self._give_up(error)

    def position(self, partition: TP) -> int | None:
        """Return the offset of the next record wanted, None when the partition is not ours."""
        runner = self._runners.get(partition.topic)
        return None if runner is None else runner.position(partition.partition)


def _by_topic(partitions: Iterable[TP]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for tp in partitions:
        found.setdefault(tp.topic, []).append(tp.partition)
    return found
