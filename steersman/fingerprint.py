"""Order-free fingerprints of sets of records: what the ledger counts by, in every stage and in SQL.

Two multisets with equal (n, sum, xor) of a 64-bit hash of their ids are the same but for a chance of about 2^-64 by
accident; order and batching do not matter, and fingerprints of parts add up (Clarke et al., "Incremental multiset hash
functions", ASIACRYPT 2003, describe the additive and the xor form used here side by side). This detects faults, not
forgery.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1


def hash64(text: str) -> int:
    """Hash an id.

    Parameters
    ----------
    text : str
        The id.

    Returns
    -------
    int
        First 8 bytes, little-endian, of its SHA-256 in UTF-8; 0 <= h < 2^64. In ClickHouse:
        ``reinterpretAsUInt64(substring(SHA256(id), 1, 8))``.
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def hash64_all(texts: Iterable[bytes]) -> NDArray[np.uint64]:
    """Hash many ids, given in UTF-8, as `hash64` does; shape (ids,)."""
    digests = b"".join([hashlib.sha256(text).digest() for text in texts])
    return np.frombuffer(digests, "<u8")[::4].astype(np.uint64)


def signed(value: int) -> int:
    """The 64 bits of an unsigned number as a signed one, which is what an Avro long holds."""
    return value - (1 << 64) if value >> 63 else value


def unsigned(value: int) -> int:
    """Inverse of `signed`."""
    return value & _MASK


@dataclass(slots=True)
class Fingerprint:
    """Count, sums and exclusive or of a multiset of records.

    Attributes
    ----------
    n
        Records.
    total, xor
        Sum modulo 2^64 and exclusive or of the hashes of their ids.
    amount
        Sum of their amounts; integers, so that equality is exact.
    """

    n: int = 0
    total: int = 0
    xor: int = 0
    amount: int = 0

    def add(self, identity: str, amount: int = 0) -> None:
        """Count one record."""
        h = hash64(identity)
        self.n += 1
        self.total = (self.total + h) & _MASK
        self.xor ^= h
        self.amount += amount

    def merge(self, other: Fingerprint) -> Self:
        """Add another multiset, and return this one."""
        self.n += other.n
        self.total = (self.total + other.total) & _MASK
        self.xor ^= other.xor
        self.amount += other.amount
        return self
