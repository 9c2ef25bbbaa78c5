"""Lost and doubled counts under kill -9: plain Faust tables beside the platform's own worker.

The same events, the same kills, one broker (Apache Kafka): `python -m benchmarks.faults_plain_faust --json`.

The default gaps between kills are to leave every system time to recover. Faust's exactly_once took 14 s on a quiet
machine with two cores, 20 s on a busy one, and a kill of a worker that has not got back to work tests little:
`kills_before_recovery` counts those.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.counting_job import PARTITIONS, compare, expected_counts
from benchmarks.counting_kafka import EventProducer, Progress, read_counts, warm_up
from benchmarks.counting_systems import MAX_CRASHES, SYSTEMS, System, Workers
from benchmarks.kill_schedule import KillSchedule
from console.brokers import start_kafka
from steersman.topics import Topics
from streams.topics import create_topics

_SETTLED_S = 3.0
_TAIL_S = 3.0  # events go on this long after the last kill, so that its recovery can be seen
_POLL_S = 0.1


@dataclass(frozen=True)
class Result:
    """One system under one schedule.

    Attributes
    ----------
    system, seed, events, workers
        What ran.
    kills
        Kills that were made.
    kills_before_recovery
        Of these, the ones that hit before the worker had recovered from the one before.
    lost, doubled
        Events counted too few and too many in the end; unit: events. When stalled, those it never came to are lost.
    wrong_sums
        Counters whose sum of values is wrong in the end; unit: counters.
    counted, committed
        All counts together, and the events that the group's committed offsets say are done; unit: events.
    stalled
        Whether it had not finished when it was given up; `why` tells.
    crashes
        Ends of a worker that were no kill of ours; it was started again each time.
    last_crash
        The end of that worker's log.
    worst_recovery_s
        Longest time from a kill to the next advance of the committed offsets; unit: seconds.
    took_s
        Unit: seconds.
    """

    system: str
    seed: int
    events: int
    workers: int
    kills: int
    kills_before_recovery: int
    lost: int
    doubled: int
    wrong_sums: int
    counted: int
    committed: int
    stalled: bool
    why: str
    crashes: int
    last_crash: str
    worst_recovery_s: float | None
    took_s: float


class Trial:
    """One system counts the events of the schedule's seed while it is being killed.

    The schedule's clock starts when the first events have been committed: a worker that is only starting up would
    have nothing to lose. Events come at an even pace until shortly after the last kill.

    Parameters
    ----------
    system, schedule
        Who, and when it is killed.
    events, workers
        How many.
    deadline_s
        Longest time without progress, once all events are there and all kills done; unit: seconds.
    brokers, folder
        The broker, and a folder for logs and data.
    """

    def __init__(
        self,
        system: System,
        schedule: KillSchedule,
        *,
        events: int,
        workers: int,
        deadline_s: float,
        brokers: str,
        folder: Path,
    ) -> None:
        self._system = system
        self._schedule = schedule
        self._events = events
        self._deadline_s = deadline_s
        self._brokers = brokers
        prefix = f"{system.name.replace(' ', '-').replace('_', '-')}.{schedule.seed}"
        topics = Topics(prefix)
        create_topics(brokers, topics, PARTITIONS)
        self._counts_topic = system.counts_topic(prefix)
        if self._counts_topic != topics.rollup:
            _create_compacted(brokers, self._counts_topic)
        self._producer = EventProducer(brokers, topics.trace, schedule.seed, events)
        self._progress = Progress(brokers, system.group(prefix), topics.trace, self._counts_topic)
        self._span_s = schedule.total_s + _TAIL_S
        self._kills = schedule.gaps()
        self._next = next(self._kills, None)
        self._clock: float | None = None  # when the first events had been committed
        self._due = 0.0
        self._killed_at: float | None = None  # None once recovered
        self._done = self._early = self._committed = self._written = 0
        self._recoveries: list[float] = []
        self._started = self._changed_at = time.monotonic()
        self._crew = Workers(system, workers, brokers, prefix, folder)

    def run(self) -> Result:
        """Run to the end, or until it must be given up, and compare."""
        first = self._events // 50
        try:
            self._producer.send_up_to(first)
            while (why := self._verdict()) is None:
                self._crew.revive()
                self._observe()
                if self._clock is not None:
                    share = min(1.0, (time.monotonic() - self._clock) / self._span_s)
                    self._producer.send_up_to(first + int((self._events - first) * share))
                    self._kill_if_due()
                time.sleep(_POLL_S)
            self._producer.send_up_to(self._events)
            self._producer.flush()
        finally:
            self._crew.stop()
            self._progress.close()
        return self._result(why)

    def _observe(self) -> None:
        committed, written, now = self._progress.committed(), self._progress.written(), time.monotonic()
        if committed > self._committed or written != self._written:
            self._changed_at = now
        if committed > self._committed:
            if self._clock is None:
                self._clock = now
                self._plan(now)
            if self._killed_at is not None:
                self._recoveries.append(now - self._killed_at)
                self._killed_at = None
        self._committed, self._written = max(self._committed, committed), written

    def _plan(self, now: float) -> None:
        if self._next is not None:
            self._due = now + self._next[0]

    def _kill_if_due(self) -> None:
        if self._next is None or time.monotonic() < self._due:
            return
        self._crew.kill(self._next[1](len(self._crew)))
        self._early += self._killed_at is not None
        self._killed_at = time.monotonic()
        # What it committed with its last breath is no recovery.
        self._committed = max(self._committed, self._progress.committed())
        self._done += 1
        self._next = next(self._kills, None)
        self._plan(self._killed_at)
        _say(
            f"{self._system.name}, seed {self._schedule.seed}: kill {self._done} at {self._committed} of "
            f"{self._events} events"
        )

    def _verdict(self) -> str | None:
        """Return "" when the job is finished, why it is given up, or None to go on."""
        now = time.monotonic()
        complete = self._next is None and self._producer.sent == self._events and self._committed >= self._events
        if complete and now - self._changed_at >= _SETTLED_S:
            return ""
        if self._crew.crashes > MAX_CRASHES:
            return f"given up after {self._crew.crashes} crashes"
        waiting_since = self._changed_at if self._clock is None else max(self._changed_at, self._clock + self._span_s)
        if now - waiting_since > self._deadline_s:
            return f"no progress for {self._deadline_s:.0f} s"
        return None

    def _result(self, why: str) -> Result:
        expected = expected_counts(self._schedule.seed, self._events)
        found = compare(expected, read_counts(self._brokers, self._counts_topic))
        return Result(
            system=self._system.name,
            seed=self._schedule.seed,
            events=self._events,
            workers=len(self._crew),
            kills=self._done,
            kills_before_recovery=self._early,
            lost=found.lost,
            doubled=found.doubled,
            wrong_sums=found.wrong_sums,
            counted=found.counted,
            committed=self._committed,
            stalled=bool(why),
            why=why,
            crashes=self._crew.crashes,
            last_crash=self._crew.last_crash,
            worst_recovery_s=round(max(self._recoveries), 2) if self._recoveries else None,
            took_s=round(time.monotonic() - self._started, 1),
        )


def _create_compacted(brokers: str, topic: str) -> None:
    new = NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1, config={"cleanup.policy": "compact"})
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})  # must outlive its futures
    for created in admin.create_topics([new]).values():
        created.result(15)


def _seeds(text: str) -> list[int]:
    """Read `1-3` or `1,5,8-9`."""
    seeds: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        seeds += range(int(low), int(high or low) + 1)
    return seeds


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Run every system under every seed, and print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults_plain_faust", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=[1, 2, 3], metavar="1-3")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--min-gap", type=float, default=18.0, metavar="S", help="shortest time between kills")
    parser.add_argument("--max-gap", type=float, default=24.0, metavar="S", help="longest time between kills")
    parser.add_argument("--deadline", type=float, default=90.0, metavar="S", help="time without progress = stalled")
    parser.add_argument("--systems", nargs="+", choices=[s.name for s in SYSTEMS], default=[s.name for s in SYSTEMS])
    parser.add_argument("--logs", type=Path, help="keep the workers' logs here")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    options = parser.parse_args(argv)
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        logs = options.logs or Path(temporary) / "logs"
        broker = start_kafka(Path(temporary) / "kafka", properties={"group.min.session.timeout.ms": "2000"})
        try:
            warm_up(broker.bootstrap)
            for seed in options.seeds:
                schedule = KillSchedule(seed, options.kills, options.min_gap, options.max_gap)
                for system in SYSTEMS:
                    if system.name in options.systems:
                        result = Trial(
                            system, schedule, events=options.events, workers=options.workers,
                            deadline_s=options.deadline, brokers=broker.bootstrap,
                            folder=logs / f"{system.name.replace(' ', '-')}-{seed}",
                        ).run()  # fmt: skip
                        _say(f"{system.name}, seed {seed}: {asdict(result)}")
                        results.append(result)
        finally:
            broker.stop()
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
        return
    for r in results:
        print(
            f"{r.system:20} seed {r.seed}: {r.events} events, {r.kills} kills: {r.lost} lost, {r.doubled} doubled, "
            f"{'stalled' if r.stalled else 'finished'}, {r.crashes} crashes, worst recovery {r.worst_recovery_s} s"
        )


if __name__ == "__main__":
    main()
