"""What has to happen to objects with threads and Kafka clients when a process forks or ends."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import time
import weakref
from typing import Protocol

#: How long the end of the process may be held up for events that are still to be delivered; seconds, all together.
EXIT_DEADLINE_S = 5.0


class Owner(Protocol):
    """An object with a lock, and perhaps a thread and a Kafka client."""

    def after_fork_in_child(self) -> None:
        """Forget the thread, the locks and the client: they belong to the parent."""
        ...

    def at_exit(self, timeout_s: float) -> None:
        """Deliver what is waiting, within the timeout, and stop."""
        ...


_owners: weakref.WeakSet[Owner] = weakref.WeakSet()


def watch(owner: Owner) -> None:
    """Tell this owner about forks and the end of the process, for as long as it lives."""
    _owners.add(owner)


def leak(client: object) -> None:
    """Never destroy this Kafka client.

    A forked child has a copy of librdkafka's memory but none of its threads, and destroying the copy would wait for
    those threads for ever. One reference too many keeps it alive until the child is gone.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


_ending_pid = 0


def at_end_of_child() -> None:
    """See to it that `Owner.at_exit` is called when a child made by multiprocessing ends.

    Such a child leaves by ``os._exit``, without the functions of `atexit`, but with multiprocessing's own finalizers.
    """
    global _ending_pid
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _ending_pid != os.getpid():
        _ending_pid = os.getpid()
        util.Finalize(None, _at_exit, exitpriority=0)


def _after_fork_in_child() -> None:
    for owner in list(_owners):
        owner.after_fork_in_child()


def _at_exit() -> None:
    deadline = time.monotonic() + EXIT_DEADLINE_S
    for owner in list(_owners):
        owner.at_exit(max(0.0, deadline - time.monotonic()))


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
