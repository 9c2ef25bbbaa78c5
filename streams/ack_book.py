"""Which delivered batches have been acknowledged, and how far a partition may therefore be committed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

Partition = tuple[str, int]
"""Topic and partition number."""


class _Entry:
    """One delivered batch."""

    __slots__ = ("done", "last", "partition", "ticket")

    def __init__(self, ticket: int, partition: Partition, last: int) -> None:
        self.ticket = ticket
        self.partition = partition
        self.last = last
        self.done = False


class AckBook:
    """Book of the batches in flight, per partition, in the order of delivery.

    A batch is known by the ticket that `deliver` hands out and no other batch ever gets. So an acknowledgement
    that comes late, from before a seek or a rebalance, can never count for a redelivery of the same offsets.

    Notes
    -----
    The committable offset only passes a batch once it and all batches before it are acknowledged. Offsets that
    no batch covers (compaction, transaction markers, retention) hold nothing up: a batch is an interval, and what
    lies between two consecutive intervals was never delivered to anybody.

    Pure: no clock, no threads, no Kafka. Costs are constant per batch.
    """

    def __init__(self) -> None:
        self._queues: dict[Partition, deque[_Entry]] = {}
        self._entries: dict[int, _Entry] = {}
        self._ready: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        self._next_ticket = 1

    def deliver(self, partition: Partition, first: int, last: int) -> int:
        """Enter a batch and return its ticket.

        Parameters
        ----------
        partition
            Where it comes from.
        first, last
            Offsets of its first and last record.

        Raises
        ------
        ValueError
            When the offsets are not above those of the batch delivered before: then somebody moved the position
            without telling the book (`seek`).
        """
        queue = self._queues.setdefault(partition, deque())
        if first > last:
            raise ValueError(f"batch of {partition} runs from {first} to {last}")
        if queue and first <= queue[-1].last:
            raise ValueError(f"batch of {partition} at {first} follows one that ends at {queue[-1].last}")
        entry = _Entry(self._next_ticket, partition, last)
        self._next_ticket += 1
        queue.append(entry)
        self._entries[entry.ticket] = entry
        return entry.ticket

    def acknowledge(self, ticket: int) -> bool:
        """Acknowledge a batch; False when the ticket is unknown, used up, or void since a seek or revocation."""
        entry = self._entries.pop(ticket, None)
        if entry is None:
            return False
        entry.done = True
        queue = self._queues[entry.partition]
        while queue and queue[0].done:
            self._ready[entry.partition] = queue.popleft().last + 1
        return True

    def committable(self, partition: Partition) -> int | None:
        """Return the next offset to commit, None when nothing new may be committed."""
        ready = self._ready.get(partition)
        if ready is None or ready == self._committed.get(partition):
            return None
        return ready

    def commit(self, partition: Partition, offset: int) -> None:
        """Note that the broker has accepted this offset; only call it when it has."""
        if partition in self._queues:
            self._committed[partition] = offset

    def seek(self, partition: Partition, offset: int, committed: int | None = None) -> None:
        """Forget what was delivered: the next batch comes from `offset`, which may be before or after it.

        Parameters
        ----------
        partition, offset
            Where to go on.
        committed
            What the group has committed, when it is known to be something else: then `offset` is to be committed, or an
            idle partition would show a lag that is none.
        """
        self._drop(partition)
        self._queues[partition] = deque()
        self._committed[partition] = offset
        if committed is not None and committed != offset:
            self._committed[partition] = committed
            self._ready[partition] = offset

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Forget these partitions; acknowledgements of their batches are void from now on."""
        for partition in list(partitions):
            self._drop(partition)

    def in_flight(self, partition: Partition) -> int:
        """Count the batches delivered and not yet passed by the committable offset."""
        return len(self._queues.get(partition, ()))

    def partitions(self) -> Iterator[Partition]:
        """Iterate over the partitions known."""
        return iter(tuple(self._queues))

    def _drop(self, partition: Partition) -> None:
        for entry in self._queues.pop(partition, ()):
            self._entries.pop(entry.ticket, None)
        self._ready.pop(partition, None)
        self._committed.pop(partition, None)
