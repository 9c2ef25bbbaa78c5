"""`python -m benchmarks.guard`: how often a guard is wrong, how soon it is right, and a rollback on the running platform.

The first two are simulated (1,000 runs each, with rewards 20 decisions late); the third is Apache Kafka, worker, sink, ClickHouse
and a service with a real router on this machine. Its policies go from apprentice to live, then what they have learned turns
wrong from one decision to the next, and the guard has to take them back.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks import broker
from benchmarks.guard_fleet import Life, live
from benchmarks.guard_worlds import DELAY, Earn, Traffic, play
from benchmarks.loop_platform import environment
from benchmarks.measure import Figure, add_out, alone, report, say, spread
from console.rebuild import rebuild_policy
from console.stack import Stack
from console.target import Target
from learners.guard import Guard, Transition
from learners.guard_spec import GuardSpec
from learners.policies_file import load_policies
from sinks.clickhouse import connect
from steersman.errors import SteersmanError

POLICIES = Path(__file__).with_name("guard.toml")
RUNS = 1_000
RATE = 40.0
FALSE_PROMOTION, ROLLBACK_DECISIONS, ROLLBACK_S = 0.05, 300, 10.0
VERSIONS = broker.VERSIONS
PAYLOAD = (
    f"simulated: {RUNS:,} seeded runs a row, utilities with the deviation named, rewards 20 decisions late, default settings; "
    "running platform: three policies with default settings but no drift detection (it leaves the guard nothing to take back), "
    f"{RATE:g} decisions a second each, good for 300 decisions after they went live, then three deviations below the baseline; "
    "Kafka, worker, sink, ClickHouse (chDB) and service on one machine"
)
_TIMEOUT_S = 300.0
_LONG, _SOON = 3_000, 1_500
_BAD_FROM = 500


class Missed(SteersmanError):
    """A bar was not reached."""


def _normal(mean: float, deviation: float = 0.2) -> Earn:
    return lambda rng: rng.gauss(mean, deviation)


def _binary(chance: float) -> Earn:
    return lambda rng: float(rng.random() < chance)


def _costly(rng: random.Random) -> float:
    return 1.0 - 0.2 * rng.paretovariate(2.5)


NULLS: dict[str, Traffic] = {
    "as good, normal": Traffic(_normal(0.6), _normal(0.6)),
    "as good, 50 % successes": Traffic(_binary(0.5), _binary(0.5)),
    "as good, 95 % successes": Traffic(_binary(0.95), _binary(0.95)),
    "as good, 99 % successes": Traffic(_binary(0.99), _binary(0.99)),
    "as good, heavy-tailed costs": Traffic(_costly, _costly),
    "worse by a tenth of a deviation": Traffic(_normal(0.58), _normal(0.6)),
}
BETTER: dict[str, Traffic] = {
    "better by half a deviation": Traffic(_normal(0.7), _normal(0.6)),
    "better by a deviation": Traffic(_normal(0.8), _normal(0.6)),
    "70 % successes instead of 50 %": Traffic(_binary(0.7), _binary(0.5)),
}
WORSE: dict[str, Traffic] = {
    f"turns worse by {times} deviations": Traffic(_normal(0.65), _normal(0.6), _normal(0.6 - 0.2 * times), _BAD_FROM)
    for times in (1, 2, 3)
}


def simulated(runs: int = RUNS) -> Iterator[Figure]:
    """Measure how often a policy that is no better goes live, and how soon one that is better does; the same for rollbacks."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for name in NULLS:
            promoted, back = (
                sum(one) / runs for one in zip(*pool.map(partial(_fooled, name), range(runs), chunksize=8), strict=True)
            )
            say(f"guard: {name}: {promoted:.1%} promoted, {back:.1%} rolled back within {_LONG:,} decisions")
            yield Figure(name, f"promoted within {_LONG:,} decisions", "share", promoted, promoted, promoted, runs)
            yield Figure(name, f"rolled back within {_LONG:,} decisions", "share", back, back, back, runs)
            if promoted > FALSE_PROMOTION:
                raise Missed(f"{name}: {promoted:.1%} of {runs} runs were promoted, allowed are {FALSE_PROMOTION:.0%}")
        for what, worlds, taken_by in (
            ("from canary to live", BETTER, _promoted_after),
            ("until rolled back", WORSE, _back_after),
        ):
            for name in worlds:
                taken = sorted(pool.map(partial(taken_by, name), range(max(1, runs // 5)), chunksize=8))
                yield from _times(name, what, taken)


def _fooled(name: str, seed: int) -> tuple[bool, bool]:
    """Whether a policy that is no better was promoted, and whether it was rolled back."""
    seen = play(Guard(GuardSpec(start="canary"), "p", 1.0), NULLS[name], _LONG, seed=seed)
    return any(t.after == "live" for t in seen), any(t.rollback for t in seen)


def _promoted_after(name: str, seed: int) -> float:
    guard = Guard(GuardSpec(start="canary"), "p", 1.0)
    return _first(play(guard, BETTER[name], 10_000, seed=seed, until="live"), "live")


def _back_after(name: str, seed: int) -> float:
    guard = Guard(GuardSpec(start="live"), "p", 1.0)
    return _first(play(guard, WORSE[name], _SOON, seed=seed, until="shadow"), "shadow", _BAD_FROM)


def _first(seen: Sequence[Transition], stage: str, after: int = 0) -> float:
    found = [t.version + DELAY - after for t in seen if t.after == stage]
    return float(next((n for n in found if n > 0), 1 << 20))


def _times(name: str, what: str, taken: Sequence[float]) -> Iterator[Figure]:
    p99 = taken[int(len(taken) * 0.99)]
    say(f"guard: {name}: {what}: median {taken[len(taken) // 2]:.0f}, 99 % within {p99:.0f} decisions")
    yield Figure(name, what, "decisions", *spread(taken), len(taken))
    yield Figure(name, f"{what}, 99th percentile", "decisions", p99, p99, p99, len(taken))


def running(rate: float = RATE, seed: int = 1) -> Iterator[Figure]:
    """Measure on the running platform.

    Raises
    ------
    Missed
        When a policy was not promoted or not rolled back in time, or the log gives other stages.
    """
    with (
        tempfile.TemporaryDirectory(prefix="steersman-bench-", ignore_cleanup_errors=True) as home,
        environment({"STEERSMAN_HOME": home, "STEERSMAN_TOPIC_PREFIX": "guard"}),
        Stack("guard", POLICIES, kafka=True, partitions=4) as stack,
    ):
        stack.start(lambda step: say(f"guard: {step}"))
        specs = list(load_policies(POLICIES))
        lives = live(
            stack.brokers,
            stack.topics,
            [s.name for s in specs],
            rate=rate,
            seed=seed,
            check=stack.check,
            timeout_s=_TIMEOUT_S,
        )
        system = "running platform"
        for one in lives:
            say(f"guard: {one}")
        missed = [one.policy for one in lives if one.live_after is None or one.back_after is None]
        if missed:
            raise Missed(f"never promoted, or never rolled back: {', '.join(missed)}; logs in {stack.logs}")
        yield from _of(lives, system, "better policy: until live", lambda o: o.live_after, "decisions")
        yield from _of(lives, system, "better policy: until live", lambda o: o.live_after_s, "s")
        yield from _of(lives, system, "bad policy: until rolled back", lambda o: o.back_after, "decisions")
        yield from _of(lives, system, "bad policy: until rolled back", lambda o: o.back_after_s, "s")
        target = Target(stack.brokers, stack.clickhouse, stack.topics.prefix, "benchmark")
        same = sum(rebuild_policy(target, spec, POLICIES).identical for spec in specs)
        yield Figure(system, "policies that the log gives again to the bit", "count", same, same, same, 1)
        told = _alerts(stack)
        yield Figure(system, "stage changes stored with their evidence", "count", told, told, told, 1)
        slowest = max(one.back_after or 0 for one in lives), max(one.back_after_s or 0.0 for one in lives)
        if slowest[0] > ROLLBACK_DECISIONS or slowest[1] > ROLLBACK_S or same < len(specs) or told < 5 * len(specs):
            raise Missed(f"slowest rollback {slowest[0]} decisions, {slowest[1]:.1f} s; {same} rebuilt, {told} alerts")


def _of(
    lives: Sequence[Life], system: str, metric: str, value: Callable[[Life], float | None], unit: str
) -> Iterator[Figure]:
    values = [v for one in lives if (v := value(one)) is not None]
    yield Figure(system, metric, unit, *spread(values), len(values))


def _alerts(stack: Stack) -> int:
    query = "SELECT count() FROM v_alerts WHERE detector = 'guard' AND JSONHas(evidence, 'version')"
    with contextlib.closing(connect(stack.clickhouse)) as client:
        stack.wait(lambda: int(client.query(query).result_rows[0][0]) >= 15, 15.0)
        return int(client.query(query).result_rows[0][0])


def figures(runs: int = RUNS) -> Iterator[Figure]:
    """Measure all of it."""
    yield from simulated(runs)
    yield from running()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write `guard.json`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python -m benchmarks.guard --runs 100 --out bench",
    )
    parser.add_argument("--runs", type=int, default=RUNS, help=f"simulated runs a row (default {RUNS:,})")
    parser.add_argument("--only-running", action="store_true", help="leave the simulated runs out")
    add_out(parser)
    options = parser.parse_args(argv)
    report(
        "guard",
        PAYLOAD,
        running() if options.only_running else figures(options.runs),
        versions=VERSIONS,
        folder=options.out,
    )


if __name__ == "__main__":
    raise SystemExit(alone(main))
