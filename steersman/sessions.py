"""Which arm a session uses, so that it keeps it: bounded memory of this process."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

MAX_SESSIONS = 10_000
"""Sessions remembered; the one asked about least recently is forgotten first, and draws anew when it comes back."""


class Kept(NamedTuple):
    """The arm of a session.

    Attributes
    ----------
    label : str
        The arm.
    trace_id : str
        Trace in which it was last used.
    """

    label: str
    trace_id: str


class Sessions:
    """Arms by policy and session. Not locked: its owner does that.

    Parameters
    ----------
    limit : int
        Most sessions remembered.
    """

    __slots__ = ("_kept", "_limit")

    def __init__(self, limit: int = MAX_SESSIONS) -> None:
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._limit = limit

    def __len__(self) -> int:
        """Sessions remembered."""
        return len(self._kept)

    def get(self, policy: str, session: str) -> Kept | None:
        """The arm of a session, None when it is not known."""
        kept = self._kept.get((policy, session))
        if kept is not None:
            self._kept.move_to_end((policy, session))
        return kept

    def put(self, policy: str, session: str, kept: Kept) -> None:
        """Remember the arm of a session."""
        self._kept[policy, session] = kept
        self._kept.move_to_end((policy, session))
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)
