"""A learner's state as bytes: a JSON header, raw little-endian float64 sums, and a SHA-256 over both. Never pickle.

Layout: ``SLRN``, format version (1 byte), length of the header (4 bytes, little-endian), header (JSON, sorted keys),
array (row-major; its shape is the header's ``shape``), what a learner attaches (as many bytes as the header's
``attachment`` says, none without one), SHA-256 of all that precedes (32 bytes).

Whatever else a learner puts there, the header says whose state it is and how it came about: `Origin`.
"""

from __future__ import annotations

import hashlib
import json
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
        """Read it from a state's header."""
        return cls(
            header["key"],
            header["lineage"],
            header["epoch"],
            header["version"],
            vector_from_json(header["began"]),
            vector_from_json(header["sources"]),
        )


def vector_to_json(vector: Mapping[int, tuple[int, int]]) -> list[list[int]]:
    """A provenance vector as [partition, offset, seq] by partition."""
    return [[partition, *vector[partition]] for partition in sorted(vector)]


def vector_from_json(rows: list[list[int]]) -> dict[int, tuple[int, int]]:
    """Inverse of `vector_to_json`."""
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
        When the bytes are damaged or of another format version.
    """
    header, raw = _parse(data)
    raw = raw[: len(raw) - header.get("attachment", 0)]
    array = np.frombuffer(raw, dtype="<f8").astype(np.float64).reshape(header["shape"])
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
    return raw[len(raw) - header.get("attachment", 0) :]


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
    return json.loads(body[_START:end]), body[end:]
