"""`python -m benchmarks.fleet`: the research assistant fleet from a cold start, beside its static baseline and the optimum.

Four policies of policies.toml learn over 20,000 requests in simulated time (`benchmarks.fleet_offline`: the router's scoring, the
trace stage with its credit, the learning stage). Per 1,000 requests: latency, cost and quality against what the static baseline
would have come to on the same queries, and the share of the way from there to the best that anybody could do who knew the world
model and the true complexity of each query (`examples.fleet.optimum`). Latency, cost and quality are those measured; the share is in expected utility of
what was decided. The control group is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.fleet_offline import play
from benchmarks.measure import Figure, add_out, alone, report, say, spread
from examples.fleet.tally import Interaction, compare
from learners.policies_file import load_policies

POLICIES: Final = Path(__file__).resolve().parents[1] / "policies.toml"
SEEDS: Final = tuple(range(301, 304))
"""Not those that anything was chosen on (1 to 3)."""
REQUESTS: Final = 20_000
EVERY: Final = 1_000
BARS: Final[Mapping[str, float]] = {
    "latency": -0.58,
    "cost": -0.40,
    "quality of complex queries": 0.0,
    "share of optimum": 0.85,
}
"""What the last quarter has to reach: changes of latency and cost at most, the others at least."""
PAYLOAD = (
    f"{REQUESTS:,} requests of examples/fleet from a cold start, 40 a second of simulated time, policies.toml as committed, steps and "
    f"answers judged, 10 % control group left out; median, smallest and largest of seeds {SEEDS[0]} to {SEEDS[-1]}"
)
_UNITS: Final = {
    "latency": "change",
    "cost": "change",
    "quality": "change",
    "quality of complex queries": "change",
    "share of optimum": "share",
}


def outcome(part: Sequence[Interaction]) -> dict[str, float]:
    """What a part of a run came to, by the names of the figures; changes of quality are differences."""
    found = compare([one for one in part if not one.control])
    return {
        "latency": found["latency_change"],
        "cost": found["cost_change"],
        "quality": found["quality"] - found["baseline"]["quality"],
        "quality of complex queries": found["quality_complex"] - found["quality_complex_baseline"],
        "share of optimum": 1 - found["regret"] / found["regret_baseline"],
    }


def figures(seeds: Sequence[int] = SEEDS, requests: int = REQUESTS, path: Path = POLICIES) -> Iterator[Figure]:
    """The curve, the last quarter, and whether each seed is at the bars."""
    policies = load_policies(path)
    parts: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        done = play(policies, seed, requests, tell=lambda n, seed=seed: say(f"fleet: seed {seed}, {n:,} requests"))  # type: ignore[misc]
        for first in range(0, requests, EVERY):
            name = f"requests {first:,} to {min(first + EVERY, requests):,}"
            parts.setdefault(name, []).append(outcome(done[first : first + EVERY]))
        parts.setdefault("last quarter", []).append(outcome(done[-(requests // 4) :]))
        say(f"fleet: seed {seed}, last quarter: {told(parts['last quarter'][-1])}")
    for name, found in parts.items():
        for metric, unit in _UNITS.items():
            yield Figure(name, metric, unit, *spread([one[metric] for one in found]), len(found))
    for metric, bar in BARS.items():
        reached = sum(at_bar(metric, one[metric]) for one in parts["last quarter"])
        yield Figure(
            "last quarter", f"seeds at the bar {metric} {bar:+g}", "count", reached, reached, reached, len(seeds)
        )


def at_bar(metric: str, value: float) -> bool:
    """Whether a figure of the last quarter is at its bar or better."""
    return value <= BARS[metric] if metric in ("latency", "cost") else value >= BARS[metric]


def told(found: Mapping[str, Any]) -> str:
    """One line of a part of a run."""
    return ", ".join(f"{metric} {value:+.3f}" for metric, value in found.items())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write `fleet.json`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python -m benchmarks.fleet --seeds 301 --requests 4000 --out /tmp/bench",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, metavar="N")
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"of one run (default {REQUESTS})")
    parser.add_argument("--policies", type=Path, default=POLICIES, help="policies file (default that of the demo)")
    add_out(parser)
    options = parser.parse_args(argv)
    if options.requests < 4:
        parser.error("argument --requests: at least 4")
    found = figures(options.seeds, options.requests, options.policies)
    report("fleet", PAYLOAD, found, folder=options.out)


if __name__ == "__main__":
    raise SystemExit(alone(main))
