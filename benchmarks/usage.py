"""CPU time of other processes, as Linux accounts it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12  # counted from the state, which comes after the name (proc(5))


def cpu_s(stat: str) -> float:
    """Return user and system time of all threads from the text of ``/proc/<pid>/stat``; unit: seconds."""
    # The name stands in brackets and may hold anything, brackets included.
    fields = stat[stat.rindex(")") + 2 :].split()
    return (int(fields[_USER]) + int(fields[_SYSTEM])) * _TICK_S


def cpu_of(pids: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU time used so far by name; unit: seconds. A process that is gone is left out."""
    used = {}
    for name, pid in pids.items():
        try:
            used[name] = cpu_s(Path(f"/proc/{pid}/stat").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return used
