"""Content encodings of request and response bodies: those of ClickHouse's HTTP interface and of OTLP."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable

import lz4.frame  # type: ignore[import-untyped]

from serving.inflate import TooLarge, Unsupported, inflate

__all__ = ["TooLarge", "Unsupported", "choose", "compress", "decompress"]

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


def decompress(data: bytes, encoding: str, cap: int, max_frames: int | None = None) -> bytes:
    """Decompress a request body.

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
    return data if encoding in ("", "identity") else inflate(data, encoding, cap, max_frames)


def choose(accepted: str) -> str | None:
    """Pick the encoding of a response from the request's Accept-Encoding header, None for none."""
    offered = {part.split(";")[0].strip().lower() for part in accepted.split(",")}
    return next((name for name in _COMPRESS if name in offered), None)


def compress(data: bytes, encoding: str) -> bytes:
    """Compress a response body with an encoding that `choose` gave."""
    return _COMPRESS[encoding](data)
