"""Kafka to Faust a batch at a time: Faust's aiokafka driver, with each fetched run of records as one event.

Importing the module registers the transport with Faust under the URL scheme ``batch``, so that
``broker="batch://host:9092"`` selects it. Which topics are batched is the app's choice (`Batching`); the messages of
all other topics pass one by one, as Faust ships them.

What differs from Faust's driver (`faust/transport/consumer.py` of 0.15.3), and why:

- `getmany` yields one message per partition and fetch; Faust pays about 100 us per message.
- `_drain_messages` awaits the callback directly; Faust wraps it and three more coroutines in tasks (46 us).
- Offsets come from an `AckBook`; Faust commits past batches in flight and pays quadratically for gaps.
- Faust's own acknowledgement of a batched event is ignored: Faust also acknowledges what it skips during a
  rebalance. Only `Consumer.acknowledge(batch)` counts.
- What Faust notes of such an event is dropped at every commit; nobody would read it, and it is 100 bytes a batch for ever.
- A refused commit is not taken for one that succeeded.
- Positions after a rebalance come from the app (its state knows better than the group's offsets).
- The longest wait of a fetch is a setting; Faust's 1,500 ms delays a partition while a fetch of others is pending.
- Where records come fast, the broker collects them for a while (`streams.fetch_pace`).
- Records that a fetch has passed over are asked for again (`serving.gaps`); Faust goes on behind them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import aiokafka
import faust
from faust.transport import drivers
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from serving.gaps import Gaps
from streams import inflate
from streams.ack_book import AckBook
from streams.fetch_pace import ENOUGH_BYTES, FetchPace
from streams.record_batch import RecordBatch

SCHEME = "batch"
"""URL scheme under which Faust finds the transport."""

inflate.install()

_AGAIN_S = 0.02
"""Pause before records are asked for again; unit: seconds."""


class PartitionHooks(Protocol):
    """What the transport asks of the application when partitions come and go."""

    async def before_revoke(self, partitions: Iterable[TP]) -> None:
        """Bring to an end what is being done for these partitions; offsets are committed afterwards."""

    async def before_assign(self, partitions: Iterable[TP], generation: int) -> None:
        """Prepare for these partitions; no record of theirs is delivered before this returns."""

    def position(self, partition: TP) -> int | None:
        """Return the offset of the next record wanted, None to start from the group's committed offset."""


class _NoHooks:
    async def before_revoke(self, partitions: Iterable[TP]) -> None:
        return None

    async def before_assign(self, partitions: Iterable[TP], generation: int) -> None:
        return None

    def position(self, partition: TP) -> int | None:
        return None


@dataclass
class Batching:
    """How an app wants its records.

    Attributes
    ----------
    topics
        Topics whose records come in batches.
    hooks
        Called when partitions come and go.
    fetch_max_wait_ms
        Longest time the broker holds a fetch for which it has no records; unit: milliseconds.
    fetch_linger_ms
        Longest time it collects records where they come fast, 0 for none; unit: milliseconds.
    """

    topics: frozenset[str] = frozenset()
    hooks: PartitionHooks = field(default_factory=_NoHooks)
    fetch_max_wait_ms: int = 100
    fetch_linger_ms: int = 0


class BatchingApp(faust.App):
    """A Faust app that says how it wants its records."""

    batching: Batching


class RawSchema(faust.Schema[Any, Any]):
    """Hands keys and values over as they are."""

    def loads_key(self, app: Any, message: Any, **options: Any) -> Any:
        """Return the key untouched."""
        return message.key

    def loads_value(self, app: Any, message: Any, **options: Any) -> Any:
        """Return the value untouched."""
        return message.value


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with the fetch wait of the settings, which may change while it runs."""

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Faust hard-codes 1,500 ms; aiokafka reads the attribute when the consumer starts, which is later.
        if not (hasattr(consumer, "_fetch_max_wait_ms") and hasattr(consumer, "_fetch_min_bytes")):
            raise RuntimeError("aiokafka no longer keeps how fetches wait in its consumer; pin aiokafka 0.14")
        consumer._fetch_max_wait_ms = _batching(self.app).fetch_max_wait_ms
        return consumer

    def linger(self, linger_ms: int) -> None:
        """From the next fetch on let the broker collect records so long; 0: it answers as soon as it has any."""
        fetcher = self._consumer and self._consumer._fetcher  # None until started
        if fetcher is not None:
            fetcher._fetch_max_wait_ms = linger_ms or _batching(self.app).fetch_max_wait_ms
            fetcher._fetch_min_bytes = ENOUGH_BYTES if linger_ms else 1


class Consumer(driver.Consumer):
    """Consumer that delivers batches and keeps the book of their acknowledgements."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.book = AckBook()
        self._gaps: Gaps[TP] = Gaps()
        self._seeks = 0
        super().__init__(*args, **kwargs)
        self._batching = _batching(self.app)
        self._pace = FetchPace(self._batching.fetch_linger_ms)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # -- delivery

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - Faust's signature
        """Yield one message per partition of a batched topic, one per record of any other."""
        seeks = self._seeks
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        self._pace.add(sum(map(len, records.values())), time.monotonic())
        cast(ConsumerThread, self._thread).linger(self._pace.linger_ms)
        if not self.flow_active or seeks != self._seeks:
            # As in Faust: what was fetched while the flow was stopped must be fetched again. The same holds for what
            # may have been fetched before a seek; Faust delivers that, out of order.
            try:
                await self.perform_seek()
            except Exception as error:  # a rebalance in between makes any of them possible, and seeks again
                self.log.warning("seek while the flow is stopped: %r", error)
            return
        for tp, run in records.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                break
            if not run or not (active is None or tp in active or tp in self._buffered_partitions):
                continue
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            if tp.topic in self._batching.topics:
                taken, again = self._gaps.take(tp, [record.offset for record in run])
                if taken:
                    yield tp, self._batch_message(tp, run[:taken], generation)
                if again is not None:
                    await self._read_again(tp, again, run[taken].offset)
            else:
                for record in run:
                    yield tp, self._to_message(tp, record)

    async def _read_again(self, tp: TP, offset: int, behind: int) -> None:
        """Go back to records that a fetch has passed over; what was delivered before them stays in the book."""
        self.log.warning("%s, partition %d: read again from %d, records from %d came first", *tp, offset, behind)
        await asyncio.sleep(_AGAIN_S)
        await super().seek(tp, offset)

    def _batch_message(self, tp: TP, run: list[Any], generation: int) -> ConsumerMessage:
        first, last = run[0].offset, run[-1].offset
        message = self._to_message(tp, run[-1])
        message.key = None
        message.value = cast(
            bytes,  # Faust's annotation; the app's raw schema hands the object on untouched
            RecordBatch(
                tp.topic,
                tp.partition,
                generation,
                self.book.deliver(tp, first, last),
                first,
                last,
                [record.offset for record in run],
                [record.value for record in run],
                [record.key for record in run],
                [record.headers for record in run],
                [-1 if record.timestamp is None else record.timestamp for record in run],
            ),
        )
        return message

    async def _drain_messages(self, fetcher: Any) -> None:
        stopped, fetcher_stopped = self._stopped.is_set, fetcher._stopped.is_set
        try:
            while not (stopped() or fetcher_stopped()):
                delivered = 0
                async for tp, message in self.getmany(timeout=1.0):
                    if self.suspend_flow.is_set() or message.generation_id != self.app.consumer_generation_id:
                        break
                    await self._deliver(tp, message)
                    delivered += 1
                    if delivered % 100 == 0:
                        await asyncio.sleep(0)
                await asyncio.sleep(0)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    async def _deliver(self, tp: TP, message: Any) -> None:
        read = self._read_offset[tp]
        if tp.topic not in self._batching.topics:
            if read is not None and message.offset < read:
                return
            if read and message.offset - read > 1 and self.app.topics.acks_enabled_for(tp.topic):
                await self._add_gap(tp, read + 1, message.offset)
        try:
            await self.callback(message)
        except KeyError:
            # The conductor's table of callbacks is rebuilt by a rebalance; a partition that is gone may be missing.
            if tp in self.assignment() and message.generation_id == self.app.consumer_generation_id:
                raise
            return
        self._read_offset[tp] = message.offset

    # -- acknowledgement

    def acknowledge(self, batch: RecordBatch) -> bool:
        """Acknowledge a batch: its effects are safe, and its offsets may be committed.

        Returns
        -------
        bool
            False when the batch is void because its partition has been taken away or sought since.
        """
        done = self.book.acknowledge(batch.ticket)
        self._n_acked += done
        return done

    def ack(self, message: Any) -> bool:
        """Faust's own acknowledgement: bookkeeping only for a batch, see the module's notes."""
        if message.topic not in self._batching.topics:
            return super().ack(message)
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if tp.topic not in self._batching.topics:
            await super()._add_gap(tp, offset_from, offset_to)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Any:
        yield from super()._filter_tps_with_pending_acks(topics)
        for topic, number in self.book.partitions():
            tp = TP(topic, number)
            if topics is None or tp in topics or topic in topics:
                yield tp

    def _new_offset(self, tp: TP) -> int | None:
        if tp.topic not in self._batching.topics:
            return super()._new_offset(tp)
        # Faust's compiled loop notes each event it is done with by itself, past `ack`, and only Faust's `_new_offset` takes one out.
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return self.book.committable(tp)

    def _should_commit(self, tp: TP, offset: int) -> bool:
        return tp.topic in self._batching.topics or super()._should_commit(tp, offset)

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        accepted = await super()._commit_offsets(offsets, start_new_transaction)
        if accepted:
            assigned = self.assignment()
            for tp, offset in offsets.items():
                if tp in assigned:
                    self.book.commit(tp, offset)
        return accepted

    # -- rebalance

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let the application finish, commit what it acknowledged, then do as Faust does."""
        self.stop_flow()
        await self._batching.hooks.before_revoke(revoked)
        if revoked and not self.app.should_stop:
            await self.commit()
        self.book.revoke(revoked)
        self._gaps.forget(revoked)
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Let the application prepare (restore its state), then do as Faust does."""
        await self._batching.hooks.before_assign(assigned, generation_id)
        await super().on_partitions_assigned(assigned, generation_id)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to where the application wants to go on, or else to the group's committed offsets."""
        self._seeks += 1
        offsets = dict(await super().seek_to_committed())
        wanted: dict[TP, int] = {}
        fresh: list[TP] = []
        for assigned in self.assignment():
            tp = TP(assigned.topic, assigned.partition)
            if tp.topic not in self._batching.topics:
                continue
            position = self._batching.hooks.position(tp)
            if position is not None:
                wanted[tp] = position
            elif not offsets.get(tp):
                fresh.append(tp)
            committed = offsets.get(tp) or 0
            self.book.seek(tp, committed if position is None else position, committed)
            self._gaps.forget([tp])
            if position is not None or committed:
                self._gaps.seek(tp, committed if position is None else position)
        if wanted:
            await self.seek_wait(wanted)
        if fresh and self.app.conf.consumer_auto_offset_reset == "earliest":
            # Without a committed offset Faust seeks nowhere, and what was fetched and dropped would be lost.
            await self._thread.seek_to_beginning(*(driver.ensure_aiokafka_TP(tp) for tp in fresh))
        return {**offsets, **wanted}

    async def seek(self, partition: TP, offset: int) -> None:
        """Seek, and tell the book."""
        self._seeks += 1
        if partition.topic in self._batching.topics:
            self.book.seek(partition, offset)
            self._gaps.seek(partition, offset)
        await super().seek(partition, offset)


class Transport(driver.Transport):
    """Faust transport whose consumer delivers batches."""

    Consumer = Consumer


def _batching(app: Any) -> Batching:
    batching = getattr(app, "batching", None)
    return batching if isinstance(batching, Batching) else Batching()


drivers.TRANSPORTS.aliases[SCHEME] = "streams.transport:Transport"
