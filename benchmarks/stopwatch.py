"""How long this process takes for its records, and how it tells the process that measures."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class Stopwatch:
    """Times the work from the first record to the last, with the CPU time of all threads of this process.

    Attributes
    ----------
    records
        Taken so far.
    """

    def __init__(self) -> None:
        self.records = 0
        self._first = self._last = 0.0
        self._cpu_first = self._cpu_last = 0.0

    def begin(self) -> None:
        """Records have come; only the first call counts."""
        if self.records == 0:
            self._first, self._cpu_first = time.time(), time.process_time()

    def took(self, records: int) -> None:
        """So many records are done."""
        self.records += records
        self._last, self._cpu_last = time.time(), time.process_time()

    def write(self, path: Path, **further: Any) -> None:
        """Write what was measured, complete or not at all: wall clock in seconds since 1970, CPU time in seconds."""
        measured = {
            "records": self.records,
            "first": self._first,
            "last": self._last,
            "wall_s": self._last - self._first,
            "cpu_s": self._cpu_last - self._cpu_first,
            **further,
        }
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(measured))
        partial.rename(path)
