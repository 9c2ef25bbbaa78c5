"""Content encodings of request and response bodies: those of ClickHouse's HTTP interface and of OTLP."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable
from typing import Any

import lz4.frame  # type: ignore[import-untyped]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lambda data: bytes(lz4.frame.compress(data)),
    "zstd": lambda data: zstd.compress(data, level=1),
    "gzip": lambda data: gzip.compress(data, compresslevel=1),
    "deflate": lambda data: zlib.compress(data, 1),
}
"""Best first, for bodies that do not leave the machine."""


class TooLarge(Exception):
    """The body exceeds the cap once decompressed."""


class Unsupported(Exception):
    """The encoding is unknown, or the body is not in it."""


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


_DECOMPRESS: dict[str, Callable[[], Any]] = {
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
    "gzip": lambda: _Zlib(31),
    "deflate": lambda: _Zlib(15),
}


def decompress(data: bytes, encoding: str, cap: int, max_frames: int | None = None) -> bytes:
    """Decompress a request body, of which every frame counts: clickhouse-connect sends one per block.

    Parameters
    ----------
    data
        The body.
    encoding
        Value of the Content-Encoding header; empty for none.
    cap
        Largest result; unit: bytes.
    max_frames
        Most frames, None for any number. Each copies what comes after it, so that a body of nothing but small frames costs time
        that grows with the square of its size.

    Raises
    ------
    TooLarge
        The result is larger than `cap`.
    Unsupported
        The encoding is unknown, or the body is not in it.
    """
    if encoding in ("", "identity"):
        return data
    make = _DECOMPRESS.get(encoding)
    if make is None:
        raise Unsupported(f"Content-Encoding {encoding!r} is unknown; {', '.join(_DECOMPRESS)} are supported")
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


def choose(accepted: str) -> str | None:
    """Pick the encoding of a response from the request's Accept-Encoding header, None for none."""
    offered = {part.split(";")[0].strip().lower() for part in accepted.split(",")}
    return next((name for name in _COMPRESS if name in offered), None)


def compress(data: bytes, encoding: str) -> bytes:
    """Compress a response body with an encoding that `choose` gave."""
    return _COMPRESS[encoding](data)
