"""State of the stages: written to a compacted topic at each checkpoint, read back when a partition is assigned.

The state of stage *s* for input partition *p* is in partition *p* of the state topic:

======================  ==========================================================================================
record key              value
======================  ==========================================================================================
``s/p/<key>``           what the stage dumped under `key`; a tombstone when the key is gone
``s/p/@marker``         JSON: `next_offset`, the offset of the input to go on from, and the stage's `meta` item
``s/p/@fence``          id of the writer that has just taken the partition over
======================  ==========================================================================================

A checkpoint delivers the dirty keys first and the marker after them. Between the two, keys are newer than the marker:
the stage, which stamps each key with the offset of the last event applied to it, skips what a key has seen.

Taking over writes a fence and reads up to it. That is the end of the partition whatever the broker says its
high watermark is, and it shuts out a former owner that does not know yet that it lost the partition: every record names
its writer in the header ``owner``, and what another writer than the fence's wrote after it is ignored. (Once
compaction has merged a superseded fence that protection is over; the topic's compaction lag is minutes, a group's
session timeout is seconds.)
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from steersman.errors import ConfigError, Unreachable
from streams.outputs import OutputRecord, Outputs

META = "meta"
_MARKER = "@marker"
_FENCE = "@fence"
_PARALLEL = 6
_PROBE_S = 3.0


@dataclass
class Recovered:
    """What the state topic holds for a stage and partition.

    Attributes
    ----------
    items
        Key -> value, `meta` included.
    next_offset
        Offset of the input to go on from; None when nothing was ever saved.
    ignored
        Records of former owners that were ignored; unit: records.
    """

    items: dict[str, bytes] = field(default_factory=dict)
    next_offset: int | None = None
    ignored: int = 0


class StateStore:
    """Reader and writer of the state topic.

    Parameters
    ----------
    brokers
        Comma-separated `host:port` list.
    topic
        The state topic.
    outputs
        Producer.
    timeout_s
        Longest time a recovery may go without progress; unit: seconds.
    """

    def __init__(self, brokers: str, topic: str, outputs: Outputs, *, timeout_s: float = 30.0) -> None:
        self._brokers = brokers
        self._topic = topic
        self._outputs = outputs
        self._timeout_s = timeout_s
        self._owners: dict[tuple[str, int], str] = {}
        self._metas: dict[tuple[str, int], bytes] = {}
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def take_over(self, stage: str, partition: int, input_topic: str) -> Recovered:
        """Fence off former owners and read what they saved.

        Raises
        ------
        Unreachable
            When the partition cannot be read.
        ConfigError
            When the saved offset lies beyond the end of the input: the two topics do not belong together.
        """
        owner = uuid.uuid4().hex
        await self._outputs.deliver([self._record(stage, partition, _FENCE, owner.encode(), owner)])
        async with self._slots:
            recovered = await asyncio.to_thread(self._read, stage, partition, owner)
            if recovered.next_offset:
                await asyncio.to_thread(self._check_end, input_topic, partition, recovered.next_offset)
        self._owners[stage, partition] = owner
        if META in recovered.items:
            self._metas[stage, partition] = recovered.items[META]
        return recovered

    async def save(self, stage: str, partition: int, dirty: Mapping[str, bytes | None], next_offset: int) -> None:
        """Write a checkpoint: dirty keys, then the marker.

        Parameters
        ----------
        stage, partition
            Whose state; it must have been taken over.
        dirty
            Changed keys; None for keys that are gone. The item `meta` goes into the marker.
        next_offset
            Offset of the input from which to go on.

        Raises
        ------
        DeliveryFailed
            When the broker did not take all of it. The checkpoint before stays good.
        """
        owner = self._owners[stage, partition]
        meta = dirty.get(META)
        if meta is not None:
            self._metas[stage, partition] = meta
        records = [self._record(stage, partition, key, value, owner) for key, value in dirty.items() if key != META]
        await self._outputs.deliver(records)
        kept = self._metas.get((stage, partition))
        marker = {
            "next_offset": next_offset,
            "meta": None if kept is None else base64.b64encode(kept).decode(),
        }
        await self._outputs.deliver([self._record(stage, partition, _MARKER, json.dumps(marker).encode(), owner)])

    def release(self, stage: str, partition: int) -> None:
        """Forget a partition that is no longer ours."""
        self._owners.pop((stage, partition), None)
        self._metas.pop((stage, partition), None)

    def _record(self, stage: str, partition: int, key: str, value: bytes | None, owner: str) -> OutputRecord:
        return OutputRecord(
            self._topic,
            f"{stage}/{partition}/{key}".encode(),
            value,
            partition=partition,
            headers=[("owner", owner.encode())],
        )

    def _read(self, stage: str, partition: int, owner: str) -> Recovered:
        consumer = self._consumer()
        try:
            # Asking first saves half a second: librdkafka retries at that pace while it knows no leader.
            first, _ = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=self._timeout_s)
            consumer.assign([TopicPartition(self._topic, partition, first)])
            recovered = Recovered()
            prefix = f"{stage}/{partition}/"
            writer: str | None = None
            deadline = time.monotonic() + self._timeout_s
            while True:
                # Not consume(): that waits for as many messages as it is asked for.
                message = consumer.poll(0.5)
                if message is None:
                    if time.monotonic() > deadline:
                        raise Unreachable(
                            f"the end of partition {partition} of state topic {self._topic}",
                            f"No record came for {self._timeout_s:.0f} s; look at the broker",
                        )
                    continue
                error = message.error()
                if error is not None:
                    raise Unreachable(f"state topic {self._topic}", error.str())
                deadline = time.monotonic() + self._timeout_s
                raw = message.key()
                key = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else ""
                if not key.startswith(prefix):
                    continue
                key, value = key[len(prefix) :], message.value()
                by = _owner(message.headers())
                if key == _FENCE:
                    writer = by
                    if by == owner:
                        return recovered
                elif writer is not None and by != writer:
                    recovered.ignored += 1
                else:
                    _apply(recovered, key, value)
        except KafkaException as error:
            raise Unreachable(f"state topic {self._topic}", error.args[0].str()) from error
        finally:
            consumer.close()

    def _check_end(self, input_topic: str, partition: int, next_offset: int) -> None:
        """Check that the log holds what the state says has been processed, as far as it is still kept."""
        consumer = self._consumer("error")
        try:
            place = TopicPartition(input_topic, partition)
            first, end = consumer.get_watermark_offsets(place, timeout=self._timeout_s)
            if next_offset <= max(first, end):
                return
            # The embedded broker counts a last batch of many records as one, so look for the record itself.
            consumer.assign([TopicPartition(input_topic, partition, next_offset - 1)])
            message = consumer.poll(_PROBE_S)
            if message is not None and message.error() is None:
                return
        except KafkaException as error:
            raise Unreachable(f"topic {input_topic}", error.args[0].str()) from error
        finally:
            consumer.close()
        raise ConfigError(
            f"the state saved in {self._topic} says that {input_topic}, partition {partition}, was processed up to offset "
            f"{next_offset}, but it ends at {end}: the topic was deleted and created anew. Delete {self._topic} as "
            "well, or choose another topic prefix"
        )

    def _consumer(self, reset: str = "earliest") -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._brokers,
                "group.id": "steersman-state-reader",
                "enable.auto.commit": False,
                "auto.offset.reset": reset,
                "fetch.wait.max.ms": 50,
                "log_level": 0,
            }
        )


def _owner(headers: Any) -> str:
    owner = next((value for name, value in headers or () if name == "owner"), None)
    return owner.decode("utf-8", "replace") if isinstance(owner, bytes) else owner or ""


def _apply(recovered: Recovered, key: str, value: bytes | None) -> None:
    if key == _MARKER:
        if value is not None:
            marker = json.loads(value)
            recovered.next_offset = int(marker["next_offset"])
            if marker.get("meta") is not None:
                recovered.items[META] = base64.b64decode(marker["meta"])
    elif value is None:
        recovered.items.pop(key, None)
    else:
        recovered.items[key] = value
