"""State of the stages: written to a compacted topic at each checkpoint, read back when a partition is assigned.

`streams.state_log` says what the records mean; this module moves them.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from steersman import fault_points
from steersman.errors import ConfigError, Unreachable
from steersman.headers import headers_of
from steersman.kafka_config import CONSUMER_LIMITS, FOLLOWERS, client_config
from steersman.watermarks import ask_watermarks
from streams.outputs import OutputRecord, Outputs
from streams.state_log import (
    FENCE,
    MARKER,
    META,
    RESET,
    Recovered,
    Seal,
    StateFold,
    fenced_id,
    marker,
    record_key,
    seal,
    writer_id,
)

_PARALLEL = 6
_PROBE_S = 3.0


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

    async def take_over(self, stage: str, partition: int, input_topic: str, generation: int = 0) -> Recovered:
        """Fence off former owners and read what they saved.

        Parameters
        ----------
        stage, partition
            Whose state.
        input_topic
            The log that it is the state of.
        generation
            Generation of the consumer group in which the partition was assigned.

        Raises
        ------
        Unreachable
            When the partition cannot be read.
        ConfigError
            When the saved offset lies beyond the end of the input: the two topics do not belong together.
        StateDamaged
            When what was saved is not what is there.
        StateTakenOver
            When somebody of a later generation has the partition.
        """
        owner = writer_id(generation, uuid.uuid4().hex)
        await self._outputs.deliver([self._record(stage, partition, FENCE, owner.encode(), owner)])
        fault_points.reach(f"{stage}.fenced")
        async with self._slots:
            recovered = await asyncio.to_thread(
                read_state, self._brokers, self._topic, stage, partition, owner=owner, timeout_s=self._timeout_s
            )
            recovered.log_start = await asyncio.to_thread(
                self._log_start, input_topic, partition, recovered.next_offset
            )
        self._owners[stage, partition] = fenced_id(owner, recovered.fence)
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
        topic, sealed = self._topic, Seal(stage, partition, owner)
        records = [
            OutputRecord(topic, full, value, partition, headers)
            for (full, headers), value in ((sealed(key, value), value) for key, value in dirty.items() if key != META)
        ]
        await self._outputs.deliver_run(records)
        fault_points.reach(f"{stage}.keys_delivered")
        value = marker(next_offset, self._metas.get((stage, partition)))
        await self._outputs.deliver([self._record(stage, partition, MARKER, value, owner)])

    async def reset(self, stage: str, partition: int) -> None:
        """Make everything saved for a partition void, so that its next owner starts from the log's beginning.

        Only for a group without members: whoever owns the partition now would go on saving, in vain.
        """
        await self._outputs.deliver([self._record(stage, partition, RESET, b"", writer_id(0, uuid.uuid4().hex))])

    def release(self, stage: str, partition: int) -> None:
        """Forget a partition that is no longer ours."""
        self._owners.pop((stage, partition), None)
        self._metas.pop((stage, partition), None)

    def _record(self, stage: str, partition: int, key: str, value: bytes | None, owner: str) -> OutputRecord:
        full = record_key(stage, partition, key)
        return OutputRecord(self._topic, full, value, partition=partition, headers=seal(full, value, owner))

    def _log_start(self, input_topic: str, partition: int, next_offset: int | None) -> int:
        """Return where the log begins, having checked that it holds what the state says has been processed."""
        consumer = _consumer(self._brokers, "error")
        try:
            place = TopicPartition(input_topic, partition)
            first, end = ask_watermarks(consumer, place, self._timeout_s)
            if not next_offset or next_offset <= max(first, end):
                return first
            # The embedded broker counts a last batch of many records as one, so look for the record itself.
            consumer.assign([TopicPartition(input_topic, partition, next_offset - 1)])
            message = consumer.poll(_PROBE_S)
            if message is not None and message.error() is None:
                return first
        except KafkaException as error:
            raise Unreachable(f"topic {input_topic}", error.args[0].str()) from error
        finally:
            consumer.close()
        raise ConfigError(
            f"the state saved in {self._topic} says that {input_topic}, partition {partition}, was processed up to offset "
            f"{next_offset}, but it ends at {end}: the topic was deleted and created anew. Delete {self._topic} as "
            "well, or choose another topic prefix"
        )


def read_state(
    brokers: str, topic: str, stage: str, partition: int, *, owner: str | None = None, timeout_s: float = 30.0
) -> Recovered:
    """Read what the state topic holds for a stage and partition.

    Parameters
    ----------
    brokers, topic
        Where.
    stage, partition
        Whose state.
    owner
        The writer up to whose fence to read; None to read to the end as the broker reports it, which changes nothing for
        whoever owns the partition.
    timeout_s
        Longest time without progress; unit: seconds.

    Raises
    ------
    Unreachable
        When the partition cannot be read.
    StateDamaged
        When what was saved is not what is there.
    """
    consumer = _consumer(brokers, "earliest")
    place = TopicPartition(topic, partition)
    try:
        # Asking first saves half a second: librdkafka retries at that pace while it knows no leader.
        first, end = ask_watermarks(consumer, place, timeout_s)
        consumer.assign([TopicPartition(topic, partition, first)])
        fold = StateFold(stage, partition, owner, f"{topic}, partition {partition}")
        deadline = time.monotonic() + timeout_s
        while True:
            if owner is None and consumer.position([place])[0].offset >= end:
                return fold.result()
            # Not consume(): that waits for as many messages as it is asked for.
            message = consumer.poll(0.5)
            if message is None:
                if owner is None and end <= first:
                    return fold.result()
                if time.monotonic() > deadline:
                    raise Unreachable(
                        f"the end of partition {partition} of state topic {topic}",
                        f"No record came for {timeout_s:.0f} s; look at the broker",
                    )
                continue
            error = message.error()
            if error is not None:
                raise Unreachable(f"state topic {topic}", error.str())
            deadline = time.monotonic() + timeout_s
            key, offset = message.key(), message.offset()
            raw = key if isinstance(key, bytes) else None
            where = -1 if offset is None else offset
            if fold.feed(where, message.timestamp()[1], raw, message.value(), headers_of(message)):
                return fold.result()
    except KafkaException as error:
        raise Unreachable(f"state topic {topic}", error.args[0].str()) from error
    finally:
        consumer.close()


def _consumer(brokers: str, reset: str) -> Consumer:
    return Consumer(
        {
            **client_config(brokers),
            **CONSUMER_LIMITS,
            "group.id": f"{FOLLOWERS}state",
            "enable.auto.commit": False,
            "auto.offset.reset": reset,
            "fetch.wait.max.ms": 50,
            "log_level": 0,
        }
    )
