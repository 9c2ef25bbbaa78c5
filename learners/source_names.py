"""Sources of feedback as states and lineages have them: users' names stay out of both."""

from __future__ import annotations

import re
from collections.abc import Iterable

from steersman.fingerprint import hash64

_HASHED = re.compile(r"#[0-9a-f]{16}\Z")


def hashed(source: str) -> str:
    """A source without its name: ``#`` and 16 hex digits."""
    return f"#{hash64(source):016x}"


def hashed_all(sources: Iterable[str]) -> tuple[str, ...]:
    """Sources as an operator lists them, by name or hashed already: hashed, sorted, each once, so that equal sets are equal values."""
    return tuple(sorted({source if _HASHED.match(source) else hashed(source) for source in sources}))
