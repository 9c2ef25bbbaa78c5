"""Ids made of what they stand for: the same thing reported again has the same id, and counts once."""

from __future__ import annotations

import hashlib


def event_id(*parts: str) -> str:
    """Return an event id, 32 hex digits (BLAKE2b, 16 bytes, of the parts)."""
    return hashlib.blake2b("\x1f".join(parts).encode("utf-8", "replace"), digest_size=16).hexdigest()


def span_id(*parts: str) -> str:
    """Return a span id, 16 hex digits and not all zero (BLAKE2b, 8 bytes, of the parts)."""
    made = hashlib.blake2b("\x1f".join(parts).encode("utf-8", "replace"), digest_size=8).hexdigest()
    return made if made.strip("0") else "0" * 15 + "1"


def trace_id(*parts: str) -> str:
    """Return a trace id, 32 hex digits and not all zero."""
    made = event_id(*parts)
    return made if made.strip("0") else "0" * 31 + "1"
