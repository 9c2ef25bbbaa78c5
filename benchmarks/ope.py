"""Off-policy evaluation: how often the true value lies in the intervals, over 1,000 seeded runs of each world."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.measure import Figure, say, spread
from benchmarks.ope_worlds import WORLDS, draw
from learners.ope.estimators import evaluate
from steersman.errors import SteersmanError

RUNS = 1_000
BAR = 0.93
PAYLOAD = (
    f"{RUNS:,} seeded worlds each: three kinds of context, a logging policy drawn anew for each, true value known; intervals of "
    "95 %. Likelihood is what the command prints first, bernstein is right for any number of decisions"
)


class Uncovered(SteersmanError):
    """An interval holds the truth too rarely."""


def figures() -> Iterator[Figure]:
    """Measure every world; coverage as a share, and mean width and error of each estimator in units of utility.

    Raises
    ------
    Uncovered
        When an interval held the truth in less than 93 % of the runs of a world.
    """
    short = []
    for name, world in WORLDS.items():
        hits: dict[str, list[float]] = {}
        widths: dict[str, list[float]] = {}
        errors: dict[str, list[float]] = {}
        sizes = []
        for seed in range(RUNS):
            truth, decisions, target, _ = draw(world, seed)
            found = evaluate(decisions, target)
            sizes.append(found.ess)
            for one in found.estimates:
                errors.setdefault(one.estimator, []).append((one.value - truth) ** 2)
                for kind, interval in (("likelihood", one.likelihood), ("bernstein", one.bernstein)):
                    key = f"{one.estimator} {kind}"
                    hits.setdefault(key, []).append(interval.low <= truth <= interval.high)
                    widths.setdefault(key, []).append(interval.high - interval.low)
        yield Figure(name, "effective sample size", "decisions", *spread(sizes), RUNS)
        for key, inside in hits.items():
            share = float(np.mean(inside))
            if share < BAR:
                short.append(f"{name}, {key}: {share:.1%}")
            yield Figure(name, f"{key} coverage", "share", share, share, share, RUNS)
            yield Figure(name, f"{key} width", "utility", *spread(widths[key]), RUNS)
        for estimator, squares in errors.items():
            root = round(float(np.sqrt(np.nanmean(squares))), 4)
            yield Figure(name, f"{estimator} root mean squared error", "utility", root, root, root, RUNS)
        say(f"ope: {name}: smallest coverage {min(np.mean(h) for h in hits.values()):.1%}")
    if short:
        raise Uncovered("; ".join(short))
