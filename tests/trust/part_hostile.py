"""Hostile byte strings through every decoder (`tests.trust.decoders`), in a process of their own with limited memory.

Records of every contract, policies, states, compressed bodies and JSON, with bits changed, cut, spliced, with lengths that
promise gigabytes, nested thousands deep; and plain noise. Each input goes through each decoder, and each time it must be
decoded or refused by an error that the decoder is meant to raise. The process lives, and its memory stays bounded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from console.children import ROOT
from tests.trust.part import Found, Say

FULL, QUICK, CHUNK = 100_000, 1_500, 10_000
MAX_GROWN_MIB = 600
MAX_SECONDS = 5.0


def run(quick: bool, seed: int, say: Say) -> Found:
    """Feed them in chunks, a process each."""
    n = QUICK if quick else FULL
    counts: dict[str, Counter[str]] = {}
    problems: list[str] = []
    fed = crashes = 0
    worst: dict[str, Any] = {"grown_mib": 0.0, "slowest_s": 0.0, "slowest_of": ""}
    for first in range(0, n, CHUNK):
        last = min(first + CHUNK, n)
        found, died_at = _child(seed, first, last)
        if found is None:
            crashes += 1
            problems.append(f"the process died at input {died_at} of seed {seed}")
            continue
        fed += found["inputs"]
        problems += found["findings"]
        for name, counted in found["counts"].items():
            counts.setdefault(name, Counter()).update(counted)
        worst["grown_mib"] = max(worst["grown_mib"], found["grown_mib"])
        if found["slowest_s"] > worst["slowest_s"]:
            worst |= {"slowest_s": found["slowest_s"], "slowest_of": found["slowest_of"]}
        say(f"hostile: {last} of {n} inputs through {len(counts)} decoders")
    for name, counted in counts.items():
        if (accounted := sum(counted.values())) != fed:
            problems.append(f"{name}: {accounted} of {fed} inputs are accounted for")
    if worst["grown_mib"] > MAX_GROWN_MIB:
        problems.append(f"memory grew by {worst['grown_mib']} MiB, {MAX_GROWN_MIB} are allowed")
    if worst["slowest_s"] > MAX_SECONDS:
        problems.append(f"{worst['slowest_of']} took {worst['slowest_s']} s of CPU, {MAX_SECONDS} are allowed")
    totals = {"hostile_inputs": fed, "crashes": crashes, "hostile_decoders": len(counts)}
    return Found(
        totals, problems[:20], worst | {"by_decoder": {k: dict(sorted(v.items())) for k, v in sorted(counts.items())}}
    )


def _child(seed: int, first: int, last: int) -> tuple[dict[str, Any] | None, str]:
    """Run a chunk; None and the number of the last input when the process died."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        command = [sys.executable, "-m", "tests.trust.hostile_child", *map(str, (seed, first, last)), str(journal)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False)
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1]), ""
        at = journal.read_text().strip() if journal.exists() else "before the first"
        return None, f"{at} (exit code {done.returncode}: {done.stderr[-500:]})"
