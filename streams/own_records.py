"""Records that this process has encoded and will read again in a moment.

A worker of both stages reads most of its rewards back from Kafka a few milliseconds after it wrote them. To decode one
takes as long as to learn from it; to find the record that the very same bytes were made of takes a thirtieth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST = 4096
"""Records remembered, up to twice as many: what is read later than that is decoded."""


class OwnRecords:
    """Records by their encoded bytes, for a while.

    Parameters
    ----------
    most : int
        When so many are remembered, those before them are forgotten.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._young: dict[bytes, Mapping[str, Any]] = {}
        self._old: dict[bytes, Mapping[str, Any]] = {}

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._young) + len(self._old)

    def note(self, value: bytes, record: Mapping[str, Any]) -> None:
        """Remember the record of which some bytes were made; nobody may change it any more, and decoding gives its equal."""
        if len(self._young) >= self._most:
            self._old, self._young = self._young, {}
        self._young[value] = record

    def take(self, value: bytes) -> Mapping[str, Any] | None:
        """Return the record of some bytes and forget it, None when it is not remembered."""
        return self._young.pop(value, None) or self._old.pop(value, None)
