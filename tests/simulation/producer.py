"""A producer on the simulated log, with the interface of `streams.outputs.Outputs`.

Records of one partition reach the log in the order in which they were sent, those of different partitions in any order.
Nothing reaches it by itself: the schedule says when how many do, and when the producer hears of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence

from streams.outputs import DeliveryFailed, OutputRecord, Outputs
from tests.simulation.log import Place, SimLog


class Delivery:
    """What `SimProducer.send` returns: the part of a future that is used, without a loop."""

    def __init__(self, count: int) -> None:
        self.offsets = [-1] * count
        self.left = count
        self.error: DeliveryFailed | None = None
        self.settled = count == 0

    def done(self) -> bool:
        return self.settled

    def result(self) -> list[int]:
        if self.error is not None:
            raise self.error
        return self.offsets

    def __await__(self) -> Generator[Delivery, None, list[int]]:
        while not self.settled:
            yield self
        return self.result()


class SimProducer(Outputs):
    """Producer of one simulated process."""

    def __init__(self, log: SimLog) -> None:
        self._log = log
        self._queues: dict[Place, deque[tuple[OutputRecord, Delivery, int]]] = {}
        self._open: list[Delivery] = []
        self._failed = False

    async def send(self, records: Sequence[OutputRecord]) -> Delivery:  # type: ignore[override]
        """Put records into the queues of their partitions."""
        if self._failed:
            raise DeliveryFailed("nothing is sent any more after a failed delivery")
        delivery = Delivery(len(records))
        for index, record in enumerate(records):
            place = record.topic, record.partition or 0
            self._queues.setdefault(place, deque()).append((record, delivery, index))
        if records:
            self._open.append(delivery)
        return delivery

    async def deliver_run(self, records: Sequence[OutputRecord]) -> None:
        """Wait for all of them: the log loses none of a partition before one that it has."""
        await self.deliver(records)

    @property
    def places(self) -> list[Place]:
        """Partitions for which records wait."""
        return [place for place, queue in self._queues.items() if queue]

    def land(self, place: Place, count: int) -> None:
        """Let the next records of a partition reach the log; the producer does not know yet."""
        queue = self._queues[place]
        for _ in range(min(count, len(queue))):
            record, delivery, index = queue.popleft()
            stamp = record.timestamp_ms
            delivery.offsets[index] = self._log.append(place, record.key, record.value, record.headers, stamp)
            delivery.left -= 1

    def land_all(self) -> None:
        """Let everything that was sent reach the log, and tell."""
        for place, queue in self._queues.items():
            self.land(place, len(queue))
        self.settle()

    def settle(self) -> None:
        """Tell of the deliveries that are complete."""
        for delivery in self._open:
            delivery.settled = delivery.settled or delivery.left == 0
        self._open = [delivery for delivery in self._open if not delivery.settled]

    def fail(self) -> None:
        """Give up: what waits is dropped, and who awaits anything hears that it failed (some of it may have landed)."""
        self._failed = True
        self._queues.clear()
        for delivery in self._open:
            delivery.error, delivery.settled = DeliveryFailed("simulated"), True
        self._open.clear()

    def drop(self) -> None:
        """The process dies: what waits is gone, and nobody hears."""
        self._queues.clear()
        self._open.clear()
