"""`python -m benchmarks.loop`: how many events a second the whole platform takes for a minute without falling behind.

Apache Kafka, workers, sink, ClickHouse and the load itself share this machine. The platform has been at work for `--warm` seconds
first: a broker that has just been started spends a third of its time on compiling itself. Then a rate has to hold for
`--seconds`: the one given, or the bar of 30,000, and where that does not hold a lower one. At the end every event and every
reward must be in ClickHouse. What the limit is made of: the CPU time of each process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

from benchmarks import broker
from benchmarks.loop_platform import Load, loaded_platform
from benchmarks.measure import Figure, add_out, alone, report, say, spread
from benchmarks.payload import PAYLOAD as TRACES
from steersman.errors import SteersmanError

SECONDS = 60.0
BAR = 30_000.0
PAYLOAD = (
    f"{TRACES}; 256 traces at once, 4 partitions, 5 policies; Kafka, stream workers (two, or --workers), sink, "
    "ClickHouse (chDB) and load on one machine"
)
VERSIONS = broker.VERSIONS
WARM_S = 30.0
WORKERS = 2
_WARM_SHARE = 0.6
_TRIES = 5
_LOWER = 0.88
_KEEPS_UP = 0.98
_BEHIND_S = 5.0
_GROWTH_S = 0.5
_SURE = 30  # samples from which on that much growth is no chance; commits come once a second


class NoRate(SteersmanError):
    """The platform kept up with none of the rates tried."""


def complaint(load: Load) -> str:
    """Say what is wrong with a load, "" for one that came as asked for and left neither worker nor sink behind.

    Behind is: more than 5 s of events in the second half of the time, or half a second more on average in its last quarter
    than in its second (with less than 30 samples proportionally more, for chance has more of a say).
    """
    if load.events < _KEEPS_UP * load.rate * load.seconds:
        return f"only {load.events / load.seconds:,.0f}/s were sent"
    for name, lag in (("worker", load.worker_lag), ("sink", load.sink_lag)):
        quarter = len(lag) // 4
        if quarter == 0:
            return f"only {len(lag)} times the broker told how far the {name} was"
        early, late = lag[quarter : 2 * quarter], lag[-quarter:]
        most = max(lag[len(lag) // 2 :]) / load.rate
        growth = (sum(late) / len(late) - sum(early) / len(early)) / load.rate
        if most > _BEHIND_S:
            return f"the {name} was {most:.1f} s behind"
        if growth > _GROWTH_S * max(1.0, _SURE / len(lag)):
            return f"the {name} fell behind by {growth:.1f} s"
    return ""


def figures(
    seconds: float = SECONDS, rate: float | None = None, workers: int = WORKERS, warm_s: float = WARM_S
) -> Iterator[Figure]:
    """Try the rate given on a platform that has been warmed up for `warm_s` seconds; else the bar, then lower ones until one holds.

    Raises
    ------
    NoRate
        When the platform did not keep up.
    WrongCount
        When something was lost on the way.
    """
    rates = [BAR * _LOWER**number for number in range(_TRIES)] if rate is None else [rate]
    with loaded_platform(workers) as platform:
        with platform.feeding(_WARM_SHARE * rates[0]):
            time.sleep(warm_s)
        platform.drain()
        for tried in rates:
            load = platform.load(tried, seconds)
            if not (why := _told(load)):
                break
            platform.drain()
        else:
            raise NoRate(f"at {load.rate:,.0f} events a second {why}")
        platform.check_stored()
        say(f"loop: {platform.sent:,} events sent, all stored, all decisions rewarded, no dead letters")
    yield from described(load)


def described(load: Load) -> Iterator[Figure]:
    """Yield the figures of a load."""
    achieved, total = load.events / load.seconds, sum(load.cpu_us.values())
    yield Figure(f"full loop, {load.seconds:.0f} s", "sustained", "events/s", *spread([achieved]), 1, round(total, 3))
    for name, lag in (("worker", load.worker_lag), ("sink", load.sink_lag)):
        yield Figure(name, "behind", "s", *spread([records / load.rate for records in lag]), len(lag))
    for name, cpu_us in sorted(load.cpu_us.items(), key=lambda item: -item[1]):
        yield Figure(name, "CPU", "us/event", *spread([cpu_us]), 1)


def _told(load: Load) -> str:
    """Print what was seen; returns the complaint."""
    why = complaint(load)
    parts = ", ".join(
        f"{name} {cpu_us:.1f}" for name, cpu_us in sorted(load.cpu_us.items(), key=lambda one: -one[1])[:6]
    )
    say(
        f"loop: {load.rate:,.0f}/s for {load.seconds:.0f} s: {why or 'held'}; at most {max(load.worker_lag) / load.rate:.1f} s "
        f"(worker) and {max(load.sink_lag) / load.rate:.1f} s (sink) behind; {sum(load.cpu_us.values()):.1f} us of CPU an event ({parts})"
    )
    return why


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write `loop.json`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python -m benchmarks.loop --rate 5000 --seconds 20 --out /tmp/bench",
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"time that a rate must hold (default {SECONDS:g})"
    )
    parser.add_argument(
        "--rate", type=float, help=f"try this rate only (default: {BAR:,.0f}, and less where that does not hold)"
    )
    parser.add_argument(
        "--warm",
        type=float,
        default=WARM_S,
        help=f"seconds at {_WARM_SHARE:g} times the rate before it (default {WARM_S:g})",
    )
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"stream workers (default {WORKERS})")
    add_out(parser)
    options = parser.parse_args(argv)
    found = figures(options.seconds, options.rate, options.workers, options.warm)
    report("loop", PAYLOAD, found, versions=VERSIONS, folder=options.out)


if __name__ == "__main__":
    raise SystemExit(alone(main))
