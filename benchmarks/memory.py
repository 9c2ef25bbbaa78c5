"""Memory of other processes over time, as Linux accounts it, and how fast it grows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

_RSS = re.compile(r"^VmRSS:\s+(\d+) kB$", re.M)


def rss_mb(status: str) -> float:
    """Return the resident set from the text of ``/proc/<pid>/status``; unit: MB (10^6 bytes). 0 for a process that has ended."""
    found = _RSS.search(status)
    return 0.0 if found is None else int(found[1]) * 1024 / 1e6


def rss_of(pids: Mapping[str, int]) -> dict[str, float]:
    """Return the resident set by name; unit: MB. A process that is gone is left out."""
    used = {}
    for name, pid in pids.items():
        try:
            used[name] = rss_mb(Path(f"/proc/{pid}/status").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return used


def slope(at: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Fit a line by least squares.

    Parameters
    ----------
    at, values : sequence of float, shape (n,)
        At least three, and not all at the same place.

    Returns
    -------
    tuple of (float, float)
        Slope, and its standard error for independent errors (samples of memory are not quite).
    """
    x, y = np.asarray(at, float), np.asarray(values, float)
    if len(x) < 3 or np.ptp(x) == 0:
        raise ValueError(f"{len(x)} samples are too few for a slope")
    x = x - x.mean()
    spread = float(x @ x)
    rise = float(x @ y) / spread
    rest = y - y.mean() - rise * x
    return rise, float(np.sqrt(rest @ rest / (len(x) - 2) / spread))
