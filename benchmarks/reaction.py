"""`python -m benchmarks.reaction`: from a feedback to a decision of another process that uses the version it led to.

The whole platform runs on this machine under a load of traces; beside it the console's reaction probe gives one feedback
after the other. Between the two moments are: the broker, the join (which lets the trace settle for the policy's `settle_ms`),
the learner, the policy topic and the router of the other process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

from benchmarks import broker
from benchmarks.loop_platform import LoadedPlatform, loaded_platform
from benchmarks.measure import Figure, add_out, alone, percentile, report, say, spread
from benchmarks.payload import PAYLOAD as TRACES
from benchmarks.payload import POLICIES
from console.probe import ReactionProbe
from learners.policies_file import load_policies
from steersman.errors import SteersmanError

RATES = (500.0, 5_000.0, 20_000.0)
SECONDS = 20.0
REPEATS = 3
VERSIONS = broker.VERSIONS
_PROBE = load_policies(POLICIES).get("default", "probe/reaction")
_SETTLE_MS = None if _PROBE is None else _PROBE.reward.settle_ms
PAYLOAD = (
    f"feedback on one decision at a time of a policy with 2 arms, settle_ms = {_SETTLE_MS}; in the background {TRACES}; "
    "4 partitions; Kafka, worker, sink, ClickHouse (chDB), load and probe on one machine"
)
_FIRST_S = 60.0
_WARM_S = 3.0
_LEFT = 1000  # records; the probe goes on, so it never is nothing


class NoReaction(SteersmanError):
    """Feedback led to no decision."""


def figures(
    rates: Sequence[float] = RATES, seconds: float = SECONDS, repeats: int = REPEATS, workers: int = 1
) -> Iterator[Figure]:
    """Measure at each rate, `repeats` times `seconds` long. A rate at which there is no reaction has no percentiles.

    Raises
    ------
    NoReaction
        When there is none even without a load.
    """
    with loaded_platform(workers) as platform:
        stack = platform.stack
        probe = ReactionProbe(stack.env, stack.brokers, stack.topics, stack.logs)
        try:
            if not stack.wait(lambda: bool(probe.samples_ms), _FIRST_S):
                raise NoReaction(f"no reaction within {_FIRST_S:g} s; logs in {stack.logs}")
            for number, rate in enumerate(rates):
                if number:
                    platform.drain(left=_LEFT)
                yield from _at(platform, probe, rate, seconds, repeats)
        finally:
            probe.stop()
        platform.check_no_dead_letters()


def _at(platform: LoadedPlatform, probe: ReactionProbe, rate: float, seconds: float, repeats: int) -> Iterator[Figure]:
    windows: list[list[float]] = []
    missed = probe.missed
    with platform.feeding(rate):
        time.sleep(_WARM_S)
        for _ in range(repeats):
            first, until = len(probe.samples_ms), time.monotonic() + seconds
            platform.stack.wait(lambda until=until: time.monotonic() >= until, seconds + 1)  # type: ignore[misc]
            windows.append(probe.samples_ms[first:])
    missed = probe.missed - missed
    system = f"{rate:,.0f} events/s in the background"
    samples = [sample for window in windows for sample in window]
    if all(windows):
        say(
            f"reaction at {rate:,.0f}/s: p50 {percentile(samples, 0.5):.0f} ms, p99 {percentile(samples, 0.99):.0f} ms of "
            f"{len(samples)} samples, {missed} missed"
        )
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            yield Figure(system, f"reaction {name}", "ms", *spread([percentile(w, share) for w in windows]), repeats)
    else:
        # No percentile is honest then: the slowest are the ones that are missing.
        say(f"reaction at {rate:,.0f}/s: {seconds:g} s went by without any; {missed} missed")
    yield Figure(system, "samples", "count", *spread([len(window) for window in windows]), repeats)
    yield Figure(system, "feedback without a reaction within 5 s", "count", missed, missed, missed, 1)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write `reaction.json`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reaction",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python -m benchmarks.reaction --rates 500 --seconds 5 --repeats 1 --out /tmp/bench",
    )
    parser.add_argument(
        "--rates", type=float, nargs="+", default=RATES, metavar="N", help="events a second in the background"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of one repeat (default {SECONDS:g})")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"at each rate (default {REPEATS})")
    parser.add_argument("--workers", type=int, default=1, help="stream workers (default 1)")
    add_out(parser)
    options = parser.parse_args(argv)
    found = figures(options.rates, options.seconds, options.repeats, options.workers)
    report("reaction", PAYLOAD, found, versions=VERSIONS, folder=options.out)


if __name__ == "__main__":
    raise SystemExit(alone(main))
