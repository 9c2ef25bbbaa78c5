"""Which arm a session uses, so that it keeps it: bounded memory of this process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steersman.arms import ArmSpace
from steersman.scoring import Weighed

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
    """Arms by policy and session; threads may share it.

    Parameters
    ----------
    limit : int
        Most sessions remembered.
    """

    def __init__(self, limit: int = MAX_SESSIONS) -> None:
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._limit = limit
        self._lock = threading.RLock()  # re-entrant: a signal handler may decide, too

    def __len__(self) -> int:
        """Sessions remembered."""
        return len(self._kept)

    def after_fork_in_child(self) -> None:
        """The lock may be held by a thread that the child does not have."""
        self._lock = threading.RLock()

    def keep(
        self,
        policy: str,
        session: str,
        trace_id: str,
        arms: ArmSpace,
        mask: NDArray[np.bool_] | None,
        scores: Weighed,
        cost: float | None,
    ) -> int | None:
        """Index of the arm that a session keeps, None when it is to draw.

        Within a trace it always keeps it, so nothing changes in the middle of a tool loop; from trace to trace, unless another
        arm is expected to be better by more than the cost.

        Parameters
        ----------
        policy, session, trace_id : str
            Who asks.
        arms : ArmSpace
            The arms there are now.
        mask : bool array (K,), optional
            Arms allowed; all by default.
        scores : Weighed
            How good the arms are in this context.
        cost : float, optional
            Of a change, in utility; None keeps nothing.
        """
        with self._lock:
            kept = self._kept.get((policy, session))
            if kept is None or cost is None or kept.label not in arms:
                return None
            index = arms.index(kept.label)
            if mask is not None and not mask[index]:
                return None
            if kept.trace_id != trace_id:
                if scores.utility[scores.greedy] - scores.utility[index] > cost:
                    return None
                self._kept[policy, session] = Kept(kept.label, trace_id)
            self._kept.move_to_end((policy, session))
            return index

    def put(self, policy: str, session: str, kept: Kept) -> None:
        """Remember the arm of a session."""
        with self._lock:
            self._kept[policy, session] = kept
            self._kept.move_to_end((policy, session))
            if len(self._kept) > self._limit:
                self._kept.popitem(last=False)
