"""Batches that are small until they are decompressed: refused by the worker before they take memory."""

from __future__ import annotations

import resource

import cramjam
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from serving.inflate import TooLarge, Unsupported, inflate_snappy
from streams import inflate

CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
MIB = 1 << 20


def batch(codec: str, *values: bytes) -> bytes:
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], 0, -1, -1, -1, 1 << 30)
    for offset, value in enumerate(values):
        assert builder.append(offset, 1, b"k", value, []) is not None
    return bytes(builder.build())


def values_of(raw: bytes) -> list[bytes]:
    inflate.install()
    records, found = MemoryRecords(raw), []
    while records.has_next():
        found += [record.value for record in records.next_batch()]
    return found


@pytest.mark.parametrize("codec", CODECS)
def test_batches_are_read_as_ever(codec: str) -> None:
    values = [b"one" * 1000, b"two" * 20_000, bytes(range(256)) * 40]
    assert values_of(batch(codec, *values)) == values


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
def test_a_bomb_stops_the_worker_before_it_takes_memory(codec: str) -> None:
    raw = batch(codec, bytes(400 * MIB))
    assert len(raw) < 2 * MIB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(inflate.BatchTooLarge, match="kafka-delete-records"):
        values_of(raw)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 350


def test_snappy_is_looked_at_before_it_is_decompressed() -> None:
    promised = b"\xff\xff\xff\x7f" + b"\x00a"  # 256 MiB, says the header
    with pytest.raises(TooLarge):
        inflate_snappy(promised, 128 * MIB)
    with pytest.raises(Unsupported):
        inflate_snappy(b"\x05\xff\xff", MIB)
    with pytest.raises(Unsupported):
        inflate_snappy(b"\x82SNAPPY\x00" + bytes(8) + b"\xff\xff\xff\xff", MIB)
    assert inflate_snappy(bytes(cramjam.snappy.compress_raw(b"a" * 99)), 99) == b"a" * 99
