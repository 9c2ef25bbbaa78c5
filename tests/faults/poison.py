"""Values that no reader of the trace topic may stumble over: rubbish, and Avro made to exhaust a decoder."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable, Mapping
from typing import Any

import fastavro

from benchmarks.avro_container import zigzag
from steersman import contracts
from steersman.codec import Codec, plain

_SCHEMA = contracts.schema("trace_event")
_HEAD = b"\xc3\x01" + contracts.fingerprint(_SCHEMA)
_SENTINEL = 1234.015625
"""A feedback value whose eight bytes are found again in an encoded event."""

NOT_FINITE = (float("nan"), float("inf"), float("-inf"))
OUT_OF_RANGE = (1e308, -1e300, 1e13)
"""Finite, so that they pass the codec, but no judgement: `streams.events.MAX_VALUE` is 1e12."""


class Poison:
    """Makes such values, from a seed.

    Parameters
    ----------
    rng
        Source of chance.
    codec
        Codec of trace events.
    """

    def __init__(self, rng: random.Random, codec: Codec):
        self._rng = rng
        self._codec = codec
        self._rubbish: list[Callable[[bytes], bytes]] = [
            lambda good: rng.randbytes(rng.randint(1, 200)),
            lambda good: b"Obj\x01" + good[2:],  # the magic of an Avro file
            lambda good: b"\xc3\x01" + rng.randbytes(8) + good[10:],
            lambda good: b"\x00" + rng.randbytes(4) + good[10:],  # a registry id that nobody gave
            lambda good: good[:-1],
            lambda good: good + b"\x00",
            lambda good: b"",
        ]

    def rubbish(self, good: bytes) -> bytes:
        """Return bytes that are no event, made from a good one's."""
        return self._rng.choice(self._rubbish)(good)

    def bomb(self, event: Mapping[str, Any]) -> bytes:
        """Return an Avro body that claims far more than it holds, or holds far more than it should."""
        bombs: list[Callable[[], bytes]] = [
            lambda: _HEAD + zigzag(1 << 40) + b"x",
            lambda: _HEAD + zigzag((1 << 31) - 1) + b"x" * 100,
            lambda: _HEAD + zigzag(-(1 << 40)),
            lambda: _until("features", event) + zigzag(10_000_000),
            lambda: _until("features", event) + zigzag(-10_000_000) + zigzag(1 << 40),
            lambda: _until("features", event) + zigzag(30_000) + bytes(4 * 30_000) + b"\x00",
            lambda: _until("eligible", event) + zigzag(1 << 62) + b"\x00" * 1000,
            # Foreign schemas: an array of nulls, and a record nested 5,000 deep.
            lambda: b"\xc3\x01" + self._rng.randbytes(8) + zigzag(10_000_000) + b"\x00",
            lambda: b"\xc3\x01" + self._rng.randbytes(8) + b"\x02" * 5001,
        ]
        return self._rng.choice(bombs)()

    def not_finite(self, event: Mapping[str, Any]) -> bytes:
        """Encode a feedback with a value that the codec refuses to write."""
        good = self._codec.encode({**event, "value": _SENTINEL})
        return good.replace(struct.pack("<d", _SENTINEL), struct.pack("<d", self._rng.choice(NOT_FINITE)))


def _until(field: str, event: Mapping[str, Any]) -> bytes:
    """Encode an event up to the beginning of a field."""
    names = [f["name"] for f in _SCHEMA["fields"]]
    fields = _SCHEMA["fields"][: names.index(field)]
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(plain({**_SCHEMA, "fields": fields})), event)
    return _HEAD + buffer.getvalue()
