"""Batches of Kafka records as no client of ours would write them: names of headers that are not UTF-8, bombs in every encoding."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
BAD_NAME = b"\xff\xfe\xfd\xfc"
_PLAIN_NAME = "~~~~"


def batch(codec: str, *values: bytes, first: int = 0, key: bytes = b"k") -> bytes:
    """A batch of records with these values and this key, the first at this offset."""
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], 0, -1, -1, -1, 1 << 30)
    for offset, value in enumerate(values):
        assert builder.append(offset, 1, key, value, []) is not None
    raw = bytes(builder.build())
    return first.to_bytes(8, "big") + raw[8:]  # the base offset is outside of what the checksum covers


def badly_named(*values: bytes, bad: int, key: bytes = b"k") -> bytes:
    """A batch of records with a header each; the name of one of them is not UTF-8."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
    for offset, value in enumerate(values):
        name = _PLAIN_NAME if offset == bad else "fine"
        assert builder.append(offset, 7, key, value, [(name, b"x")]) is not None
    raw = bytearray(builder.build().replace(_PLAIN_NAME.encode(), BAD_NAME))
    raw[17:21] = calc_crc32c(bytes(raw[21:])).to_bytes(4, "big")
    return bytes(raw)


def send(brokers: str, topic: str, *batches: bytes, partition: int = 0) -> list[int]:
    """Write batches to a topic as they are; returns the offset of each one's first record."""

    async def work() -> list[int]:
        producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all", max_request_size=1 << 30)
        await producer.start()
        try:
            offsets = []
            for raw in batches:
                made = producer.create_batch()
                assert made.append(key=b"k", value=b"v", timestamp=1) is not None
                made.close()
                made._build()
                made._buffer = bytearray(raw)
                sent = await producer.send_batch(made, topic, partition=partition)
                offsets.append((await sent).offset)
            return offsets
        finally:
            await producer.stop()

    return asyncio.run(work())
