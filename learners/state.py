"""A learner's state as bytes: a JSON header, raw little-endian float64 sums, and a SHA-256 over both. Never pickle.

Layout: ``SLRN``, format version (1 byte), length of the header (4 bytes, little-endian), header (JSON, sorted keys),
array (row-major; its shape is the header's ``shape``), SHA-256 of all that precedes (32 bytes).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steersman.errors import SteersmanError

MAGIC = b"SLRN"
VERSION = 1
_DIGEST = 32
_START = len(MAGIC) + 1 + 4


class StateError(SteersmanError):
    """A learner's state that cannot be used: restore an older one, or rebuild it from the reward topic."""


def pack(header: Mapping[str, Any], array: NDArray[np.float64]) -> bytes:
    """Header and array as bytes; equal values give equal bytes."""
    text = json.dumps({**header, "shape": list(array.shape)}, sort_keys=True, separators=(",", ":")).encode()
    body = b"".join([MAGIC, bytes([VERSION]), len(text).to_bytes(4, "little"), text, array.astype("<f8").tobytes()])
    return body + hashlib.sha256(body).digest()


def unpack(data: bytes) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Inverse of `pack`; StateError when the bytes are damaged or of another format version."""
    if len(data) < _START + _DIGEST or data[: len(MAGIC)] != MAGIC:
        raise StateError("these bytes are not a learner's state")
    if data[len(MAGIC)] != VERSION:
        raise StateError(f"the state has format version {data[len(MAGIC)]}; this program reads {VERSION}")
    body = data[:-_DIGEST]
    if hashlib.sha256(body).digest() != data[-_DIGEST:]:
        raise StateError("the state is damaged: its SHA-256 does not match")
    end = _START + int.from_bytes(data[len(MAGIC) + 1 : _START], "little")
    header = json.loads(body[_START:end])
    array = np.frombuffer(body[end:], dtype="<f8").astype(np.float64).reshape(header["shape"])
    return header, array
