"""Mergeable histograms of durations with eight buckets per doubling.

Bucket *i* holds the durations in ``[2**(i/8), 2**((i+1)/8))`` microseconds; a duration of 0 goes into bucket 0
with 1. Two histograms are merged by adding counts, so windows, partitions and agents add up to anything
wider, in Python and in SQL alike.

Error bound: `percentile` answers with the geometric middle of the bucket that holds the wanted order
statistic (nearest rank), so its relative error is at most ``2**(1/16) - 1``, 4.43 %, for durations of
1 microsecond or more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from math import ceil, isqrt
from typing import Final

MAX_RELATIVE_ERROR: Final = 2 ** (1 / 16) - 1
_LAST_BUCKET: Final = 8 * 63 - 1


def _lower_bound(bucket: int) -> int:
    """Smallest integer n with n**8 >= 2**bucket, by exact integer roots."""
    power = 1 << bucket
    root = isqrt(isqrt(isqrt(power)))
    return root if root**8 == power else root + 1


# Integers instead of floor(8 * log2(d)): exact at every bucket's edge, and faster.
BOUNDS: Final = [_lower_bound(i) for i in range(_LAST_BUCKET + 1)]
"""Smallest duration of each bucket; unit: microseconds."""


def bucket_of(duration_us: int) -> int:
    """Bucket of a duration.

    Parameters
    ----------
    duration_us : int
        Duration, 0 or more; unit: microseconds.

    Returns
    -------
    int
        ``floor(8 * log2(duration_us))`` exactly, 0 for 0 and 1.
    """
    return bisect_right(BOUNDS, duration_us) - 1 if duration_us > 1 else 0


def merge(into: dict[int, int], other: Mapping[int, int]) -> None:
    """Add the counts of one histogram (bucket -> count) to another, in place."""
    for bucket, count in other.items():
        into[bucket] = into.get(bucket, 0) + count


def percentile(histogram: Mapping[int, int], q: float) -> float | None:
    """Duration below which a share of the values lies (nearest rank).

    Parameters
    ----------
    histogram : mapping of int to int
        Bucket -> count.
    q : float
        Share, 0 to 1; 0.5 is the median.

    Returns
    -------
    float or None
        Estimate in microseconds, at most `MAX_RELATIVE_ERROR` off; None for an empty histogram.

    Raises
    ------
    ValueError
        When q is outside 0..1.
    """
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"q must be between 0 and 1, not {q}")
    total = sum(histogram.values())
    if total == 0:
        return None
    rank = max(1, ceil(q * total))
    below = 0
    for bucket in sorted(histogram):
        below += histogram[bucket]
        if below >= rank:
            break
    return float(2.0 ** ((bucket + 0.5) / 8))
