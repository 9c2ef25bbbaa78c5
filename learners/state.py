"""A learner's state as bytes: a JSON header, raw little-endian float64 sums, and a SHA-256 over both. Never pickle.

Layout: ``SLRN``, format version (1 byte), length of the header (4 bytes, little-endian), header (JSON, sorted keys),
array (row-major; its shape is the header's ``shape``), what a learner attaches (as many bytes as the header's
``attachment`` says, none without one), SHA-256 of all that precedes (32 bytes).

Whatever else a learner puts there, the header says whose state it is and how it came about: `Origin`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from steersman.errors import SteersmanError

MAGIC = b"SLRN"
VERSION = 2
_DIGEST = 32
_START = len(MAGIC) + 1 + 4


class StateError(SteersmanError):
    """A learner's state that cannot be used: restore an older one, or rebuild it from the reward topic."""


@dataclass(frozen=True)
class Origin:
    """Whose state it is, and which rewards made it.

    Attributes
    ----------
    key : str
        "tenant/policy".
    lineage : str
        `learners.spec.PolicySpec.lineage` that it was learned under.
    epoch, version : int
        Epoch, and rewards applied in it.
    began, sources : mapping of int to (int, int)
        Provenance vector at the start of the epoch, and now.
    """

    key: str
    lineage: str
    epoch: int
    version: int
    began: Mapping[int, tuple[int, int]]
    sources: Mapping[int, tuple[int, int]]

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Read it from a state; StateError when the bytes are damaged."""
        return cls.from_header(_parse(data)[0])

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> Self:
        """Read it from a state's header; StateError when that does not say it."""
        try:
            names, numbers = (header["key"], header["lineage"]), (header["epoch"], header["version"])
            began, sources = vector_from_json(header["began"]), vector_from_json(header["sources"])
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"the header of a learner's state does not say whose it is: {error!r}"[:300]) from error
        if not all(isinstance(name, str) for name in names) or not all(type(n) is int and n >= 0 for n in numbers):
            raise StateError("the header of a learner's state holds names or numbers of another type")
        return cls(*names, *numbers, began, sources)


def vector_to_json(vector: Mapping[int, tuple[int, int]]) -> list[list[int]]:
    """A provenance vector as [partition, offset, seq] by partition."""
    return [[partition, *vector[partition]] for partition in sorted(vector)]


def vector_from_json(rows: list[list[int]]) -> dict[int, tuple[int, int]]:
    """Inverse of `vector_to_json`; ValueError for anything but rows of three integers."""
    if not all(type(number) is int for row in rows for number in row):
        raise ValueError("a provenance vector holds integers only")
    return {partition: (offset, seq) for partition, offset, seq in rows}


def pack(header: Mapping[str, Any], array: NDArray[np.float64]) -> bytes:
    """Header and array as bytes; equal values give equal bytes. The header must hold what `Origin` reads."""
    text = json.dumps({**header, "shape": list(array.shape)}, sort_keys=True, separators=(",", ":")).encode()
    body = b"".join([MAGIC, bytes([VERSION]), len(text).to_bytes(4, "little"), text, array.astype("<f8").tobytes()])
    return body + hashlib.sha256(body).digest()


def unpack(data: bytes) -> tuple[Origin, dict[str, Any], NDArray[np.float64]]:
    """Inverse of `pack`, with the header read twice: as `Origin` and as it is.

    Raises
    ------
    StateError
        When the bytes are damaged or of another format version, or the sums are not finite or not of the shape named.
    """
    header, raw = _parse(data)
    raw = raw[: len(raw) - _attached(header, raw)]
    shape = header.get("shape")
    if (
        not isinstance(shape, list)
        or not all(type(n) is int and n >= 0 for n in shape)
        or math.prod(shape) * 8 != len(raw)
    ):
        raise StateError(f"the learner's state holds {len(raw)} bytes of sums, which are not of its shape"[:300])
    array = np.frombuffer(raw, dtype="<f8").astype(np.float64).reshape(shape)
    if not np.isfinite(array).all():
        raise StateError("the learner's state holds sums that are not finite")
    return Origin.from_header(header), header, array


def attach(data: bytes, attachment: bytes) -> bytes:
    """A state with further bytes in it, for `attachment_of`; what else is in it is read as before."""
    header, raw = _parse(data)
    text = json.dumps({**header, "attachment": len(attachment)}, sort_keys=True, separators=(",", ":")).encode()
    body = b"".join([MAGIC, bytes([VERSION]), len(text).to_bytes(4, "little"), text, raw, attachment])
    return body + hashlib.sha256(body).digest()


def attachment_of(data: bytes) -> bytes:
    """What was attached to a state; empty when nothing was. StateError when the bytes are damaged."""
    header, raw = _parse(data)
    return raw[len(raw) - _attached(header, raw) :]


def _attached(header: Mapping[str, Any], raw: bytes) -> int:
    """How many bytes at the end of the array's are an attachment."""
    size = header.get("attachment", 0)
    if type(size) is not int or not 0 <= size <= len(raw):
        raise StateError("the header of a learner's state names an attachment that it does not hold")
    return size


def _parse(data: bytes) -> tuple[dict[str, Any], bytes]:
    if len(data) < _START + _DIGEST or data[: len(MAGIC)] != MAGIC:
        raise StateError("these bytes are not a learner's state")
    if data[len(MAGIC)] != VERSION:
        raise StateError(
            f"the learner's state has format version {data[len(MAGIC)]}; this program reads {VERSION}. Make it anew from "
            "the reward topic: stop the workers, 'python -m streams reset --stage learn --partition N' with the number of "
            "the partition that could not be restored, start them again"
        )
    body = data[:-_DIGEST]
    if hashlib.sha256(body).digest() != data[-_DIGEST:]:
        raise StateError("the learner's state is damaged: its SHA-256 does not match")
    end = _START + int.from_bytes(data[len(MAGIC) + 1 : _START], "little")
    try:
        header = json.loads(body[_START:end])
    except (ValueError, RecursionError) as error:
        raise StateError(f"the header of a learner's state is no JSON ({type(error).__name__})") from error
    if not isinstance(header, dict):
        raise StateError("the header of a learner's state is no JSON object")
    return header, body[end:]
