"""Decompression with a cap: of request bodies, and of the batches that Kafka hands out.

A broker's limits are limits on what is compressed: a batch of 1 MiB may become 255 MiB (lz4) or more than a GiB (gzip,
zstd). aiokafka's own functions know no cap, so `install` puts ours in their place. Having the broker compress anew, by the
topic's ``compression.type``, is no way out: Apache Kafka 4.4 answers such a batch with an unknown error, not with a refusal.
"""

from __future__ import annotations

import importlib
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any, Final

import cramjam
import lz4.frame  # type: ignore[import-untyped]

from steersman.errors import SteersmanError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_BATCH_BYTES: Final = 128 << 20
"""Largest batch that a worker takes, decompressed; our producers' are below 10 MiB. Unit: bytes."""

_XERIAL = b"\x82SNAPPY\x00"


class TooLarge(Exception):
    """The data exceeds the cap once decompressed."""


class Unsupported(Exception):
    """The encoding is unknown, or the data is not in it."""


class BatchTooLarge(SteersmanError):
    """A batch of Kafka records that would take too much memory; the partition stays where it is until it is removed."""


class _Zlib:
    """zlib's decompressor under the signature that those of lz4 and zstd share."""

    def __init__(self, window: int):
        self._stream = zlib.decompressobj(window)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(data, max_length)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data


_STREAMS: dict[str, Callable[[], Any]] = {
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
    "gzip": lambda: _Zlib(31),
    "deflate": lambda: _Zlib(15),
}
ENCODINGS: Final = tuple(_STREAMS)
"""What `inflate` knows."""


def inflate(data: bytes, encoding: str, cap: int) -> bytes:
    """Decompress data, of which every frame counts: clickhouse-connect sends one per block.

    Parameters
    ----------
    data
        Compressed.
    encoding
        One of `ENCODINGS`.
    cap
        Largest result; unit: bytes.

    Raises
    ------
    TooLarge
        The result is larger than `cap`; no more than that was ever held.
    Unsupported
        The encoding is unknown, or the data is not in it.
    """
    make = _STREAMS.get(encoding)
    if make is None:
        raise Unsupported(f"Content-Encoding {encoding!r} is unknown; {', '.join(ENCODINGS)} are supported")
    parts: list[bytes] = []
    size = 0
    while data:
        stream = make()
        try:
            part = stream.decompress(data, max_length=cap - size + 1)
        except (zlib.error, zstd.ZstdError, RuntimeError) as e:
            raise Unsupported(f"the body is not {encoding}: {e}") from e
        size += len(part)
        if size > cap:
            raise TooLarge
        if not stream.eof:
            raise Unsupported(f"the body ends inside its {encoding} frame")
        parts.append(part)
        data = stream.unused_data or b""
    return parts[0] if len(parts) == 1 else b"".join(parts)


def inflate_snappy(data: bytes, cap: int) -> bytes:
    """Decompress snappy, in one block or in the blocks of xerial's framing, as Kafka's clients write it. Raises as `inflate`."""
    blocks = [data]
    if data[:8] == _XERIAL:
        blocks, at = [], 16
        while at < len(data):
            (size,) = struct.unpack_from("!i", data.ljust(at + 4, b"\0"), at)
            if size <= 0:
                raise Unsupported("the batch ends inside its snappy frame")
            blocks.append(data[at + 4 : at + 4 + size])
            at += 4 + size
    try:
        if sum(cramjam.snappy.decompress_raw_len(block) for block in blocks) > cap:
            raise TooLarge
        return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)
    except cramjam.DecompressionError as error:
        raise Unsupported(f"the batch is not snappy: {error}") from error


def _of_batch(encoding: str) -> Callable[[Any], bytes]:
    def decode(payload: Any) -> bytes:
        data = bytes(payload)
        try:
            if encoding == "snappy":
                return inflate_snappy(data, MAX_BATCH_BYTES)
            return inflate(data, encoding, MAX_BATCH_BYTES)
        except TooLarge:
            raise BatchTooLarge(
                f"a batch of {len(data)} bytes of {encoding} is larger than {MAX_BATCH_BYTES >> 20} MiB once decompressed: no "
                "producer of ours sends such; find out which client did. The partition stops there until the records before "
                "and in it are deleted (kafka-delete-records.sh)"
            ) from None

    return decode


def install() -> None:
    """Put the capped functions in the place of aiokafka's. Does nothing the second time."""
    names = ("aiokafka.codec", "aiokafka.record.default_records", "aiokafka.record._crecords.default_records",
             "aiokafka.record.legacy_records", "aiokafka.record._crecords.legacy_records")  # fmt: skip
    for name in names:
        module = importlib.import_module(name)
        for encoding in ("gzip", "lz4", "snappy", "zstd"):
            if hasattr(module, f"{encoding}_decode"):
                setattr(module, f"{encoding}_decode", _DECODE[encoding])


_DECODE = {encoding: _of_batch(encoding) for encoding in ("gzip", "lz4", "snappy", "zstd")}
