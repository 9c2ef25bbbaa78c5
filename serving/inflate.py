"""Decompression with a cap, of request bodies and of batches of Kafka records: what is small may become gigabytes."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any, Final

import cramjam
import lz4.frame  # type: ignore[import-untyped]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_XERIAL = b"\x82SNAPPY\x00"


class TooLarge(Exception):
    """The data exceeds the cap once decompressed."""


class Unsupported(Exception):
    """The encoding is unknown, or the data is not in it."""


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


def inflate(data: bytes, encoding: str, cap: int, max_frames: int | None = None) -> bytes:
    """Decompress data, of which every frame counts: clickhouse-connect sends one per block.

    Parameters
    ----------
    data
        Compressed.
    encoding
        One of `ENCODINGS`.
    cap
        Largest result; unit: bytes.
    max_frames
        Most frames, None for any number. Each copies what comes after it, so that a body of nothing but small frames costs time
        that grows with the square of its size.

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
        if max_frames is not None and len(parts) >= max_frames:
            raise Unsupported(f"the body has more than {max_frames} {encoding} frames")
        if not stream.eof:
            raise Unsupported(f"the body ends inside its {encoding} frame")
        parts.append(part)
        data = stream.unused_data or b""
    return parts[0] if len(parts) == 1 else b"".join(parts)


def peek(data: bytes, encoding: str, size: int) -> bytes:
    """Decompress the beginning of data, at most `size` bytes; empty where that cannot be done in steps, or the data is damaged."""
    make = _STREAMS.get(encoding)
    if make is None:
        return b""
    try:
        found: bytes = make().decompress(data, max_length=size)
    except (zlib.error, zstd.ZstdError, RuntimeError):
        return b""
    return found


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
