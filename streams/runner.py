"""Drives the stages of one input topic: restore, process, deliver, checkpoint, give up.

The order that nothing may change: outputs delivered, then state delivered, then the batches acknowledged. Outputs are
sent at once; it is the checkpoint that waits for them. It takes the state as it is when it begins, and the next batches
are processed while it waits for the broker; only one checkpoint of a partition is on its way at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from steersman import fault_points
from steersman.codec import Codec
from steersman.errors import DecodeError
from streams.dead_letters import DeadLetterStage, DlqLimit
from streams.edges import Event, MakeEdge, Step
from streams.failures import Failures
from streams.metrics import Metrics
from streams.outputs import OutputRecord, Outputs
from streams.record_batch import RecordBatch
from streams.slot import Checkpoint, Slot
from streams.state import StateStore

log = logging.getLogger("steersman.streams")

_MAX_SENDING = 32
"""Batches of one partition whose outputs may be on their way."""
_MOST_AHEAD = 2
"""Checkpoints' worth of records that are processed while one is on its way."""


class StageRunner:
    """All partitions of one stage in this worker.

    Parameters
    ----------
    name
        Name of the stage: first part of its state keys, and label of its metrics.
    topic
        Input topic.
    make
        Makes the stage of a partition.
    codec
        Decodes the input.
    outputs, store, metrics
        Shared parts of the worker.
    dead_letter_topic
        Where records go that cannot be processed.
    limit
        The brake on those.
    acknowledge
        Called for each batch whose effects are safe.
    checkpoint_s, checkpoint_records
        A partition is saved after this time or this many records; units: seconds, records.
    monotonic_s
        Clock by which checkpoints become due; unit: seconds.
    spawn
        Runs a checkpoint beside everything else.

    Attributes
    ----------
    checkpoints
        How many there were.
    """

    def __init__(
        self,
        name: str,
        topic: str,
        *,
        make: MakeEdge,
        codec: Codec,
        outputs: Outputs,
        store: StateStore,
        metrics: Metrics,
        dead_letter_topic: str,
        limit: DlqLimit,
        acknowledge: Callable[[RecordBatch], Any],
        checkpoint_s: float,
        checkpoint_records: int,
        monotonic_s: Callable[[], float] = time.monotonic,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Future[None]] = asyncio.ensure_future,
    ) -> None:
        self.name = name
        self.topic = topic
        self._make = make
        self._codec = codec
        self._outputs = outputs
        self._store = store
        self._metrics = metrics
        self._failures = Failures(name, dead_letter_topic, limit, metrics)
        self._acknowledge = acknowledge
        self._checkpoint_s = checkpoint_s
        self._checkpoint_records = checkpoint_records
        self._monotonic_s = monotonic_s
        self._spawn = spawn
        self._slots: dict[int, Slot] = {}
        self._out: Slot | None = None  # the one that a batch is being processed of, and that is nobody's meanwhile
        self._lock = asyncio.Lock()
        self.checkpoints = 0

    # -- partitions

    async def assign(self, partition: int, generation: int) -> None:
        """Take a partition over and restore its state."""
        started = time.perf_counter()
        recovered = await self._store.take_over(self.name, partition, self.topic, generation)
        stage = self._make(partition)
        stage.restore(recovered.items.items())
        # Without saved state everything is made anew from the log: the group's offsets alone would skip what the state held.
        position = recovered.log_start if recovered.next_offset is None else recovered.next_offset
        async with self._lock:
            self._slots[partition] = Slot(partition, generation, stage, position, position, self._monotonic_s())
        fault_points.reach(f"{self.name}.restored")
        seconds = time.perf_counter() - started
        self._metrics.recovery_seconds.labels(self.name).observe(seconds)
        self._metrics.ignored_state.inc(recovered.ignored)
        self._metrics.state_items.labels(self.topic, str(partition)).set(stage.state_items())
        log.info(
            "%s: partition %d restored in %.2f s, %d state items (%d bytes), from offset %d",
            self.name, partition, seconds, len(recovered.items), recovered.size, position,
        )  # fmt: skip

    async def release(self, partitions: Iterable[int]) -> None:
        """Checkpoint partitions and give them up; batches of theirs still queued are ignored from now on."""
        async with self._lock:
            for partition in list(partitions):
                slot = self._slots.pop(partition, None)
                if slot is not None:
                    try:
                        await self._saved(slot)
                        await self._checkpoint(slot)
                        await self._saved(slot)
                    finally:
                        slot.stage.close()
                        self._store.release(self.name, partition)

    def abandon(self) -> None:
        """Give everything up without a checkpoint, after a failure: what was not saved will be repeated.

        It is called from anywhere, also while a batch waits for the producer: nothing that is under way takes a partition back.
        """
        for slot in (*self._slots.values(), self._out):
            if slot is None:
                continue
            if slot.saving is not None:
                slot.saving.cancel()
            slot.stage.close()
        self._slots.clear()
        self._out = None

    def position(self, partition: int) -> int | None:
        """Return the next offset to process, None when the partition is not ours."""
        slot = self._slots.get(partition)
        return None if slot is None else slot.position

    def saved(self, partition: int) -> int | None:
        """Return the offset up to which all is safe, None when the partition is not ours."""
        slot = self._slots.get(partition)
        return None if slot is None else slot.saved

    @property
    def partitions(self) -> list[int]:
        """Partitions that are ours."""
        return sorted(self._slots)

    # -- records

    async def handle(self, batch: RecordBatch) -> None:
        """Process a batch and send its outputs; their delivery is awaited by the next checkpoint."""
        started = time.perf_counter()
        async with self._lock:
            slot = self._slots.get(batch.partition)
            if slot is None or slot.generation != batch.generation:
                return
            start = self._start(slot, batch)
            if start < len(batch):
                # Whatever interrupts this leaves stage and position apart, so the partition is given up first.
                self._out = self._slots.pop(batch.partition)
                step = self._process(slot, batch, start)
                await self._send(slot, step)
                if self._out is not slot:
                    return  # abandoned meanwhile
                self._out = None
                fault_points.reach(f"{self.name}.outputs_sent")
                slot.position = batch.last + 1
                slot.changed = True
                slot.urgent = slot.urgent or step.save
                self._slots[batch.partition] = slot
            slot.unsaved.append(batch)
            slot.unsaved_records += len(batch) - start
            self._metrics.records.labels(self.name).inc(len(batch) - start)
            self._metrics.batches.labels(self.name).inc()
            self._metrics.batch_seconds.labels(self.name).observe(time.perf_counter() - started)
            if (sent_ms := batch.timestamps[-1]) > 0:
                self._metrics.record_age_seconds.labels(self.name).observe(max(0.0, time.time() - sent_ms / 1000))
            await self._checkpoint_if_due(slot)

    async def idle(self) -> None:
        """Deliver what has become due with time, and checkpoint what is due; called often."""
        if self._lock.locked():
            return  # busy with a batch, which does the same
        async with self._lock:
            for slot in list(self._slots.values()):
                step = slot.stage.idle()
                if step is not None:
                    slot.changed = True
                    slot.urgent = slot.urgent or step.save
                    await self._send(slot, step)
                await self._checkpoint_if_due(slot)

    async def tick(self, encode: Callable[[int], bytes], now_us: int) -> int:
        """Tell idle partitions the time, each through a record in that very partition; returns how many."""
        due = [
            slot for slot in self._slots.values() if slot.tick_offset < slot.position and slot.stage.needs_tick(now_us)
        ]
        if due:
            records = [
                OutputRecord(self.topic, b"tick", encode(slot.partition), partition=slot.partition) for slot in due
            ]
            for slot, offset in zip(due, await self._outputs.deliver(records), strict=True):
                # Until that one has been processed there is no point in another.
                slot.tick_offset = offset
        return len(due)

    def _start(self, slot: Slot, batch: RecordBatch) -> int:
        """Index of the first record of the batch that is new."""
        if batch.first == slot.position:
            return 0
        if batch.first > slot.position:
            missing = batch.first - slot.position
            self._metrics.gaps.labels(self.name).inc(missing)
            log.error(
                "%s: offsets %d to %d of %s, partition %d, were never processed: they are no longer in the log, since the outage "
                "was longer than the topic's retention, or in a batch that cannot be read (a warning before this says so)",
                self.name, slot.position, batch.first - 1, batch.topic, batch.partition,
            )  # fmt: skip
            return 0
        start = bisect_left(batch.offsets, slot.position)
        self._metrics.repeated.labels(self.name).inc(start)
        return start

    def _process(self, slot: Slot, batch: RecordBatch, start: int) -> Step:
        step = slot.stage.process_batch(batch, start)
        if step is None:
            step = self._process_decoded(slot, batch, start)
        self._failures.settle(step, batch, start)
        return step

    def _process_decoded(self, slot: Slot, batch: RecordBatch, start: int) -> Step:
        events: list[Event] = []
        failed: list[tuple[int, DeadLetterStage, Exception]] = []
        decode = self._codec.decode
        for index in range(start, len(batch)):
            offset = batch.offsets[index]
            try:
                record = decode(batch.values[index], batch.headers[index])
            except DecodeError as error:
                failed.append((offset, DeadLetterStage.DESERIALIZE, error))
                record = None
            events.append((offset, batch.timestamps[index] * 1000, record))
        step = slot.stage.process(events)
        step.failed[:0] = failed
        return step

    async def _send(self, slot: Slot, step: Step) -> None:
        while slot.sending and slot.sending[0].done():
            slot.sending.popleft().result()  # raises if that delivery failed
        if step.records:
            slot.sending.append(await self._outputs.send(step.records))
        if len(slot.sending) > _MAX_SENDING:
            await slot.sending.popleft()
        for topic, count in Counter(record.topic for record in step.records).items():
            self._metrics.outputs.labels(topic).inc(count)
        for name, count in step.counters.items():
            self._metrics.counters.labels(self.name, name).inc(count)

    # -- checkpoints

    async def _checkpoint_if_due(self, slot: Slot) -> None:
        if slot.saving is not None:
            if not slot.saving.done() and slot.unsaved_records < _MOST_AHEAD * self._checkpoint_records:
                return
            await self._saved(slot)
        if self._slots.get(slot.partition) is not slot:
            return  # abandoned meanwhile
        if not slot.changed and not slot.unsaved:
            return
        waited_s = self._monotonic_s() - slot.saved_at
        if slot.urgent or slot.unsaved_records >= self._checkpoint_records or waited_s >= self._checkpoint_s:
            await self._checkpoint(slot)

    async def _checkpoint(self, slot: Slot) -> None:
        """Begin a checkpoint of what has been processed."""
        if slot.changed:
            await self._send(slot, Step(slot.stage.audit()))
        began = time.perf_counter()
        dirty = slot.stage.dump_dirty() if slot.changed else None
        taken = Checkpoint(slot.position, slot.sending, slot.unsaved, dirty, began)
        slot.sending, slot.unsaved = deque(), []
        slot.unsaved_records = 0
        slot.changed = slot.urgent = False
        slot.saved_at = self._monotonic_s()
        items = slot.stage.state_items()
        slot.saving = self._spawn(self._save(slot, taken, items))

    async def _save(self, slot: Slot, taken: Checkpoint, items: int) -> None:
        for outputs in taken.sending:
            await outputs
        fault_points.reach(f"{self.name}.outputs_delivered")
        if taken.dirty is not None:
            await self._store.save(self.name, slot.partition, taken.dirty, taken.position)
            place = self.topic, str(slot.partition)
            self._metrics.checkpoint_seconds.labels(self.name).observe(time.perf_counter() - taken.began)
            self._metrics.saved_bytes.labels(self.name).inc(sum(len(value or b"") for value in taken.dirty.values()))
            self._metrics.saved.labels(*place).set(taken.position)
            self._metrics.state_items.labels(*place).set(items)
        fault_points.reach(f"{self.name}.state_delivered")
        for batch in taken.batches:
            self._acknowledge(batch)
        slot.saved = taken.position
        self.checkpoints += 1
        fault_points.reach(f"{self.name}.acknowledged")

    async def _saved(self, slot: Slot) -> None:
        """Wait for the checkpoint on its way; raises what became of it."""
        saving, slot.saving = slot.saving, None
        if saving is not None:
            await saving
