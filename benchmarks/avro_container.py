"""Avro object container files made of record bodies that are encoded already (Avro 1.12 specification, "Object Container Files").

A run of Kafka records becomes one file that ClickHouse takes, and no record is decoded for it: what the sink is measured against.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

_MAGIC: Final = b"Obj\x01"
_SYNC: Final = b"steersman/batch\x00"
"""Sixteen bytes after the only block. They need not be random: nobody searches a file of one block for them."""


def zigzag(number: int) -> bytes:
    """Encode an Avro int or long: zigzag, then seven bits a byte, the lowest first.

    Raises
    ------
    OverflowError
        For a number that is no 64-bit integer.
    """
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError(f"{number} is no Avro long")
    rest = (number << 1) ^ (number >> 63)
    if rest < 0x80:
        return bytes((rest,))
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def container_header(schema: Mapping[str, Any]) -> bytes:
    """Return the head of files whose records were written by a schema; the same for all of them.

    Parameters
    ----------
    schema : mapping
        The writer's schema, as its JSON form.
    """
    text = json.dumps(schema, separators=(",", ":")).encode()
    parts = ((b"avro.schema", text), (b"avro.codec", b"null"))
    entries = (zigzag(len(piece)) + piece for pair in parts for piece in pair)
    return _MAGIC + zigzag(len(parts)) + b"".join(entries) + b"\x00" + _SYNC


def container(header: bytes, pieces: Iterable[bytes], records: int) -> bytes:
    """Return a file of one uncompressed block.

    Parameters
    ----------
    header : bytes
        What `container_header` gave.
    pieces : iterable of bytes
        Parts of the encoded records, in order; a record may come in several.
    records : int
        How many records they make.
    """
    block = b"".join(pieces)
    return b"".join((header, zigzag(records), zigzag(len(block)), block, _SYNC))
