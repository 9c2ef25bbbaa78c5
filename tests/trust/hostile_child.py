"""`python -m tests.trust.hostile_child SEED FIRST LAST JOURNAL`: feeds hostile bytes to every decoder; prints counts as JSON.

A process of its own, since what it proves is that the process lives. Before each input its number goes into the journal,
so that one which kills the process is known. Its memory is limited.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import warnings
from collections import Counter
from typing import Any

from tests.trust.decoders import decoders, readers
from tests.trust.hostile_bytes import Hostile

MEMORY_BYTES = 4 << 30
"""Address space of the process; numpy and librdkafka reserve more than they use."""
_BATCH = 128


def main(seed: int, first: int, last: int, journal: str) -> dict[str, Any]:
    """Feed the inputs `first` to `last`, the last excluded."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    hostile, singles, batches = Hostile(seed), decoders(), readers()
    counts: dict[str, Counter[str]] = {one.name: Counter() for one in (*singles, *batches)}
    findings: list[str] = []
    slowest, slowest_of = 0.0, ""
    held: list[bytes] = []
    descriptor = os.open(journal, os.O_RDWR | os.O_CREAT)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(first, last):
        os.pwrite(descriptor, f"{number:12d}".encode(), 0)
        value = hostile.make(number)
        for one in singles:
            started = time.process_time()
            try:
                one.decode(value)
                counts[one.name]["decoded"] += 1
            except one.refusals as error:
                counts[one.name][f"refused:{getattr(error, 'reason', type(error).__name__)}"] += 1
            except BaseException as error:
                counts[one.name]["unexpected"] += 1
                findings.append(f"{one.name}: input {number} of seed {seed}: {type(error).__name__}: {error}"[:300])
            if (took := time.process_time() - started) > slowest:
                slowest, slowest_of = took, f"{one.name}, input {number}"
        held.append(value)
        if len(held) == _BATCH or number == last - 1:
            for reader in batches:
                try:
                    refused = reader.read(held)
                    counts[reader.name]["refused"] += refused
                    counts[reader.name]["decoded"] += len(held) - refused
                except BaseException as error:
                    counts[reader.name]["unexpected"] += len(held)
                    findings.append(
                        f"{reader.name}: inputs to {number} of seed {seed}: {type(error).__name__}: {error}"[:300]
                    )
            held.clear()
    return {
        "inputs": last - first,
        "counts": {name: dict(sorted(found.items())) for name, found in counts.items()},
        "findings": findings[:20],
        "slowest_s": round(slowest, 3),
        "slowest_of": slowest_of,
        "grown_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
    }


if __name__ == "__main__":
    warnings.simplefilter("error")
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
