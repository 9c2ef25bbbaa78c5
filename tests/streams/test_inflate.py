"""Batches that are small until they are decompressed: each becomes one dead letter, and takes no memory to speak of."""

from __future__ import annotations

import asyncio
import resource
from types import SimpleNamespace
from typing import Any

import cramjam
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.structs import TopicPartition

from serving.inflate import TooLarge, Unsupported, inflate_snappy, peek
from steersman.codec import MAX_BYTES, Codec
from steersman.errors import DecodeError
from steersman.kafka_config import MAX_BATCH_BYTES
from streams import inflate
from tests.mock_kafka import mock_kafka
from tests.raw_batches import badly_named, batch, send

CODECS = ("gzip", "snappy", "lz4", "zstd")
MIB = 1 << 20
PLACE = TopicPartition("t", 0)


def fetched(raw: bytes, at: int = 0, most: int | None = None) -> Any:
    """What aiokafka makes of an answer: its result of a fetch, and where it is to go on."""
    inflate.install()
    state = SimpleNamespace(paused=False, position=at)
    state.consumed_to = lambda offset: setattr(state, "position", offset)
    records = fetcher.PartitionRecords(PLACE, fetcher.MemoryRecords(raw), [], at, None, None, True, 0)
    assignment = SimpleNamespace(active=True, state_value=lambda place: state)
    found = fetcher.FetchResult(PLACE, assignment=assignment, partition_records=records, backoff=0)
    return SimpleNamespace(result=found, state=state)


@pytest.mark.parametrize("codec", CODECS)
def test_batches_are_read_as_ever(codec: str) -> None:
    values = [b"one" * 1000, b"two" * 20_000, bytes(range(256)) * 40]
    one = fetched(batch(codec, *values) + batch(codec, b"next", first=3))
    assert [(r.offset, r.value) for r in one.result.getall()] == list(enumerate([*values, b"next"]))
    assert one.state.position == 4
    assert not one.result.has_more()


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
def test_a_bomb_becomes_one_record_that_nobody_can_decode(codec: str) -> None:
    raw = batch(codec, b"mine" + bytes(400 * MIB), b"", b"") + batch(codec, b"next", first=3)
    assert len(raw) < 2 * MIB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one = fetched(raw)
    bomb, after = one.result.getall()
    assert (bomb.offset, bomb.timestamp, bomb.key) == (2, 1, None)
    assert (after.offset, after.value, one.state.position) == (3, b"next", 4)
    assert b"mine" in bomb.value[:20]
    with pytest.raises(DecodeError) as refused:
        Codec("trace_event").decode(bomb.value)
    assert refused.value.reason == "too_large"
    [(name, why)] = bomb.headers
    assert name == "steersman.batch"
    assert why.startswith(b"offsets 0 to 2: ")
    assert f"{MAX_BATCH_BYTES >> 20} MiB".encode() in why
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 3 * MAX_BATCH_BYTES / MIB
    # Who has had the bomb does not get it again.
    again = fetched(raw, at=3)
    assert [r.value for r in again.result.getall()] == [b"next"]


def test_a_header_whose_name_is_not_utf_8_stops_nobody() -> None:
    """Brokers do not look at it, aiokafka fails on it: one record would stop a partition for good."""
    raw = badly_named(b"v0", b"v1", b"v2", b"v3", bad=2)
    one = fetched(raw + batch("lz4", b"next", first=4))
    records = one.result.getall()
    assert [(r.offset, r.value) for r in records] == [(0, b"v0"), (1, b"v1"), (3, b""), (4, b"next")]
    assert records[2].headers == (("steersman.batch", b"offsets 2 to 3: UnicodeDecodeError"),)
    assert (records[2].timestamp, one.state.position) == (7, 5)


def test_a_batch_damaged_on_its_way_is_fetched_again() -> None:
    raw = bytearray(batch("lz4", b"x" * 100))
    raw[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="Invalid CRC"):
        fetched(bytes(raw)).result.getall()


def test_what_is_no_batch_of_its_codec_becomes_a_record_too() -> None:
    inflate.install()
    with pytest.raises(inflate.BadBatch, match="7 bytes are not gzip") as refused:
        inflate._DECODE["gzip"](b"garbage")
    assert refused.value.shown == b"garbage"


def test_a_poll_holds_a_bounded_number_of_bytes() -> None:
    """A hundred batches within the cap, of 1 KB each, would be a hundred times as much as one."""
    raw = b"".join(batch("gzip", bytes(8 * MIB), first=n) for n in range(20))
    assert len(raw) < MIB
    one = fetched(raw)
    sizes = []
    while one.result.has_more():
        records = one.result.getall(2000)
        sizes.append(sum(len(r.value) for r in records))
    assert sum(sizes) == 160 * MIB
    assert max(sizes) <= inflate.POLL_BYTES + 8 * MIB
    assert one.state.position == 20


def test_at_most_so_many_records_as_asked_for() -> None:
    one = fetched(batch("lz4", *[b"x"] * 10))
    assert [len(one.result.getall(4)) for _ in range(3)] == [4, 4, 2]
    assert not one.result.has_more()
    paused = fetched(batch("lz4", b"x"))
    paused.state.paused = True
    assert paused.result.getall() == []


def test_snappy_is_looked_at_before_it_is_decompressed() -> None:
    promised = b"\xff\xff\xff\x7f" + b"\x00a"  # 256 MiB, says the header
    with pytest.raises(TooLarge):
        inflate_snappy(promised, MAX_BATCH_BYTES)
    with pytest.raises(inflate.BadBatch) as refused:
        inflate._DECODE["snappy"](promised)
    assert len(refused.value.shown) == MAX_BYTES + 1
    with pytest.raises(Unsupported):
        inflate_snappy(b"\x05\xff\xff", MIB)
    with pytest.raises(Unsupported):
        inflate_snappy(b"\x82SNAPPY\x00" + bytes(8) + b"\xff\xff\xff\xff", MIB)
    assert inflate_snappy(bytes(cramjam.snappy.compress_raw(b"a" * 99)), 99) == b"a" * 99


def test_only_the_beginning_is_looked_at() -> None:
    whole = b"begin" + bytes(8 * MIB)
    for encoding, squeeze in (("gzip", cramjam.gzip), ("zstd", cramjam.zstd), ("lz4", cramjam.lz4)):
        assert peek(bytes(squeeze.compress(whole)), encoding, 7) == b"begin\0\0"
        assert peek(b"garbage", encoding, 7) == b""
    assert peek(b"garbage", "snappy", 7) == b""


async def consumed(brokers: str, upto: int) -> list[Any]:
    """What aiokafka's own consumer, as Faust drives it, hands over of a topic to an offset."""
    inflate.install()
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([PLACE])
        found: list[Any] = []
        async with asyncio.timeout(30):
            while not found or found[-1].offset < upto:
                for records in (await consumer.getmany(timeout_ms=200, max_records=2000)).values():
                    found += records
        assert await consumer.position(PLACE) == upto + 1
        return found
    finally:
        await consumer.stop()


def test_a_consumer_goes_on_behind_what_cannot_be_read() -> None:
    with mock_kafka() as brokers:
        named = badly_named(b"v0", b"v1", b"v2", bad=1)
        send(brokers, "t", batch("lz4", b"a", b"b"), batch("gzip", bytes(40 * MIB)), named)
        send(brokers, "t", batch("zstd", bytes(40 * MIB), b"x", b"y"), batch("none", b"z"))
        found = asyncio.run(consumed(brokers, 9))
    assert [(r.offset, len(r.value)) for r in found] == [
        (0, 1), (1, 1), (2, MAX_BYTES + 1), (3, 2), (5, 0), (8, MAX_BYTES + 1), (9, 1)
    ]  # fmt: skip
    assert [dict(r.headers)["steersman.batch"].split(b":")[0] for r in found if len(r.value) not in (1, 2)] == [
        b"offsets 2 to 2", b"offsets 4 to 5", b"offsets 6 to 8"
    ]  # fmt: skip
