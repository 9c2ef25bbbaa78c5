"""What stays of closed traces until nothing about them is expected any more, in as little memory as that takes.

A worker remembers every trace of a horizon, an hour by default, so this is what its memory is made of. A trace is one entry of a
dict from bytes to bytes, and one of a heap of bytes: no object among them that the garbage collector would have to look at.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final

from streams.trace_state import Marker, TraceKey

_ID_BYTES: Final = 16
_OFFSET_BYTES: Final = 8
_TIME_BYTES: Final = 10
_TIME_ZERO: Final = 1 << (8 * _TIME_BYTES - 1)
"""Kafka's largest timestamp has 74 bits in microseconds; they may be negative, too."""


class ClosedTraces:
    """Markers by trace, and when each is due to be forgotten.

    Parameters
    ----------
    horizon_us : int
        How long after its last event or reward a trace is remembered; unit: microseconds.
    """

    def __init__(self, horizon_us: int) -> None:
        self._horizon = horizon_us
        self._held: dict[bytes, bytes] = {}
        self._dues: list[bytes] = []  # time, then the key: bytes sort as the two would

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._held)

    def __contains__(self, key: TraceKey) -> bool:
        """Whether a trace is remembered as closed."""
        return _packed(key) in self._held

    @property
    def next_due(self) -> int | None:
        """Event time at which the first of them is forgotten, None when there is none; unit: microseconds since 1970-01-01 UTC."""
        return _time_of(self._dues[0][:_TIME_BYTES]) if self._dues else None

    def get(self, key: TraceKey) -> Marker | None:
        """Return what is remembered of a trace, None when nothing is."""
        data = self._held.get(_packed(key))
        return None if data is None else _unpacked(data)

    def keep(self, key: TraceKey, marker: Marker) -> None:
        """Remember a trace that was not remembered."""
        packed = _packed(key)
        self._held[packed] = _pack(marker)
        heappush(self._dues, _time(marker.quiet_at + self._horizon) + packed)

    def change(self, key: TraceKey, marker: Marker) -> None:
        """Remember something else of a trace; its ``quiet_at`` must be what it was."""
        self._held[_packed(key)] = _pack(marker)

    def forget(self, now_us: int) -> Iterator[tuple[TraceKey, Marker]]:
        """Give out those whose time has come, and remember them no longer.

        Parameters
        ----------
        now_us : int
            The clock of the partition; unit: microseconds since 1970-01-01 UTC.
        """
        end = _time(now_us + 1)
        while self._dues and self._dues[0] < end:
            packed = heappop(self._dues)[_TIME_BYTES:]
            key = packed[:_ID_BYTES].hex(), packed[_ID_BYTES:].decode()
            yield key, _unpacked(self._held.pop(packed))


def _packed(key: TraceKey) -> bytes:
    return bytes.fromhex(key[0]) + key[1].encode()


def _pack(marker: Marker) -> bytes:
    return marker.at.to_bytes(_OFFSET_BYTES, "big") + _time(marker.quiet_at) + marker.seen.tobytes()


def _unpacked(data: bytes) -> Marker:
    seen = array("Q")
    seen.frombytes(data[_OFFSET_BYTES + _TIME_BYTES :])
    quiet_at = _time_of(data[_OFFSET_BYTES : _OFFSET_BYTES + _TIME_BYTES])
    return Marker(int.from_bytes(data[:_OFFSET_BYTES], "big"), quiet_at, seen)


def _time(time_us: int) -> bytes:
    """Bytes that sort as the times do."""
    return (time_us + _TIME_ZERO).to_bytes(_TIME_BYTES, "big")


def _time_of(data: bytes) -> int:
    return int.from_bytes(data, "big") - _TIME_ZERO
