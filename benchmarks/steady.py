"""How near steady ceilings are kept on either side, and at which quality. `python -m benchmarks steady`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.ceilings import Kept, cases, ours
from benchmarks.measure import Figure, Missed, say, spread

PAYLOAD = (
    "the worlds of `python -m benchmarks ceilings` with `steady = true`, seeds on which nothing was chosen: replays in which only the chosen arm's outcome is revealed, snapshots every 10 decisions and "
    "rewards 10 late unless the name says otherwise, quality alone in the utility; deviations are of any 1,000 decisions after 600 of them. Of routing data even a controller that is told what every arm makes and "
    "uses keeps 53 to 77 % of the windows (docs/rewards.md)"
)
SEEDS = range(24, 27)
_ASKED = "fleet, ceiling of 8000 micro-USD"
"""The case that is held to the bar: single calls use a few ceilings, rewards are ten late."""
_LEAST = 0.97


def figures() -> Iterator[Figure]:
    """All of it, about a quarter of an hour.

    Raises
    ------
    Missed
        At the end, when the simulated writer's windows are not within 1 %, or its quality is not above the best fixed mix's.
    """
    found: dict[str, list[Kept]] = {}
    for seed in SEEDS:
        for case in cases(seed, steady=True):
            one = ours(case)
            say(f"{case.name}, seed {seed}: {one.inside:.1%} within 1 %, quality {one.gain:+.4f}")
            found.setdefault(case.name, []).append(one)
    for name, runs in found.items():
        for metric, unit, values in (
            ("mean use of the ceiling", "share", [one.mean for one in runs]),
            ("of all 1,000 decisions, within 1 %", "share", [one.inside for one in runs]),
            ("largest deviation of any 1,000 decisions", "share", [one.worst for one in runs]),
            ("of all 1,000 decisions, those in which the ceiling binds", "share", [one.binds for one in runs]),
            ("standard deviation of one decision's use", "ceilings", [one.scatter for one in runs]),
            ("quality above the best fixed mix of the same use", "quality", [one.gain for one in runs]),
        ):
            yield Figure(name, metric, unit, *spread(values), len(values))
    if wrong := list(missed(found.get(_ASKED, []))):
        raise Missed("; ".join(wrong))


def missed(runs: list[Kept]) -> Iterator[str]:
    """What is not as the manual says of the simulated writer, over its seeds."""
    inside, gain = np.mean([(one.inside, one.gain) for one in runs], axis=0).tolist()
    if inside < _LEAST:
        yield f"{inside:.1%} of the windows are within 1 % of a steady ceiling"
    if gain <= 0.0:
        yield f"quality under a steady ceiling is {gain:+.4f} from the best fixed mix of the same use"
