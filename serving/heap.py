"""The C heap of a service that runs for months: what was large and is free goes back to the system."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Of ``malloc.h``; https://man7.org/linux/man-pages/man3/mallopt.3.html."""
LARGE_BYTES = 1 << 20
ARENAS = 2


def steady_heap() -> bool:
    """Keep large blocks out of the heap, and threads to few heaps; returns whether the C library was told.

    By default glibc raises the size from which a block is mapped by itself with every such block that is freed, up to 32 MiB. The
    tables of large dicts, which Python makes anew as keys come and go, then lie in the heap between small blocks that stay, and the
    heap grows by one of them now and then. Each thread of a producer or consumer would get a heap of its own besides.
    With another C library than glibc nothing is done.
    """
    tell = getattr(ctypes.CDLL(None), "mallopt", None)
    if tell is None:
        return False
    return bool(tell(_M_MMAP_THRESHOLD, LARGE_BYTES)) and bool(tell(_M_ARENA_MAX, ARENAS))
