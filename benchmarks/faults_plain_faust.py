"""Lost and doubled counts under kill -9: plain Faust tables beside the platform's own worker.

The same events, the same kills, one broker (Apache Kafka): `python -m benchmarks.faults_plain_faust --json`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.counting_job import PARTITIONS, compare, expected_counts
from benchmarks.counting_kafka import EventProducer, Progress, read_counts
from benchmarks.kill_schedule import KillSchedule
from benchmarks.plain_faust_worker import TABLE
from console.brokers import start_kafka
from console.children import Child, python
from steersman.topics import Topics
from streams.topics import create_topics

SESSION_TIMEOUT_S = 3.0
MAX_CRASHES = 20
_USAGE = 2  # exit code of a wrong argument or setting, of both kinds of worker
_SETTLED_S = 3.0
_TAIL_S = 3.0  # events go on this long after the last kill, so that its recovery can be seen
_POLL_S = 0.1


@dataclass(frozen=True)
class System:
    """What does the job.

    Attributes
    ----------
    name
        As reported.
    module
        The worker.
    group, counts_topic
        Its consumer group and the topic that ends up holding the counts, by topic prefix.
    environment
        Its settings, by broker, topic prefix and folder.
    """

    name: str
    module: str
    group: Callable[[str], str]
    counts_topic: Callable[[str], str]
    environment: Callable[[str, str, Path], Mapping[str, str]]


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
        Events counted too few and too many in the end; unit: events.
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


def _faust(guarantee: str) -> System:
    def environment(brokers: str, prefix: str, folder: Path) -> Mapping[str, str]:
        return {
            "COUNTING_BROKERS": brokers,
            "COUNTING_APP_ID": f"{prefix}-faust",
            "COUNTING_TOPIC": Topics(prefix).trace,
            "COUNTING_GUARANTEE": guarantee,
            "COUNTING_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
            "COUNTING_DATADIR": str(folder),
        }

    return System(
        f"faust {guarantee}",
        "benchmarks.plain_faust_worker",
        lambda prefix: f"{prefix}-faust",
        lambda prefix: f"{prefix}-faust-{TABLE}-changelog",
        environment,
    )


def _own_environment(brokers: str, prefix: str, _: Path) -> Mapping[str, str]:
    return {
        "STEERSMAN_BROKERS": brokers,
        "STEERSMAN_TOPIC_PREFIX": prefix,
        "STEERSMAN_PARTITIONS": str(PARTITIONS),
        "STEERSMAN_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
    }


SYSTEMS = (
    System(
        "steersman",
        "benchmarks.counting_worker",
        lambda prefix: f"{prefix}-streams",
        lambda prefix: Topics(prefix).rollup,
        _own_environment,
    ),
    _faust("at_least_once"),
    _faust("exactly_once"),
)


class Workers:
    """Workers that are started again whenever they end.

    Parameters
    ----------
    system
        What to start.
    count
        How many.
    brokers, prefix
        Handed to them.
    folder
        For their logs and data.
    """

    def __init__(self, system: System, count: int, brokers: str, prefix: str, folder: Path) -> None:
        self._system = system
        self._brokers, self._prefix, self._folder = brokers, prefix, folder
        self.crashes = 0
        self.last_crash = ""
        self._children = [self._start(index) for index in range(count)]

    def _start(self, index: int) -> Child:
        name = f"worker{index}"
        environment = self._system.environment(self._brokers, self._prefix, self._folder / name)
        arguments = ["worker", "--loglevel", "warn"] if self._system.name.startswith("faust") else []
        return Child(name, python(self._system.module, *arguments), self._folder, environment)

    def __len__(self) -> int:
        return len(self._children)

    def kill(self, index: int) -> None:
        """Kill one as a crash of the machine would, and start it again at once."""
        self._children[index].kill()
        self._children[index] = self._start(index)

    def revive(self) -> None:
        """Start again those that ended by themselves.

        Raises
        ------
        RuntimeError
            When one was started wrongly: that is a mistake of this benchmark, not a fault of the system.
        """
        for index, child in enumerate(self._children):
            if child.exit_code == _USAGE:
                raise RuntimeError(f"{self._system.name} was started wrongly:\n{child.tail()}")
            if child.exit_code is not None:
                self.crashes += 1
                self.last_crash = f"exit code {child.exit_code}: {child.tail(3)}"
                if self.crashes <= MAX_CRASHES:
                    self._children[index] = self._start(index)

    def stop(self) -> None:
        """Stop them in an orderly way, or else kill them."""
        for child in self._children:
            child.stop(grace_s=15)


def run(
    system: System, schedule: KillSchedule, *, events: int, workers: int, deadline_s: float, brokers: str, folder: Path
) -> Result:
    """Let one system count the events of the schedule's seed while it is being killed.

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
    prefix = f"{system.name.replace(' ', '-').replace('_', '-')}.{schedule.seed}"
    topics = Topics(prefix)
    create_topics(brokers, topics, PARTITIONS)
    counts_topic = system.counts_topic(prefix)
    if counts_topic != topics.rollup:
        _create_compacted(brokers, counts_topic)
    producer = EventProducer(brokers, topics.trace, schedule.seed, events)
    progress = Progress(brokers, system.group(prefix), topics.trace, counts_topic)
    started = time.monotonic()
    crew = Workers(system, workers, brokers, prefix, folder)
    try:
        first = events // 50
        producer.send_up_to(first)
        span_s = schedule.total_s + _TAIL_S
        kills = schedule.gaps()
        following = next(kills, None)
        clock = due = killed_at = None
        done = early = written = best = 0
        recoveries: list[float] = []
        changed_at = started
        why = ""
        while True:
            crew.revive()
            committed, end, now = progress.committed(), progress.written(), time.monotonic()
            if committed > best or end != written:
                changed_at = now
            if committed > best:
                if clock is None:
                    clock, due = now, now + following[0] if following else None
                if killed_at is not None:
                    recoveries.append(now - killed_at)
                    killed_at = None
            best, written = max(best, committed), end
            if clock is not None:
                producer.send_up_to(first + int((events - first) * min(1.0, (now - clock) / span_s)))
            if following is not None and due is not None and now >= due:
                crew.kill(following[1](len(crew)))
                early += killed_at is not None
                killed_at = time.monotonic()
                best = max(best, progress.committed())  # what it committed with its last breath is no recovery
                done += 1
                following = next(kills, None)
                due = now + following[0] if following else None
                _say(f"{system.name}, seed {schedule.seed}: kill {done} at {best} of {events} events")
            if following is None and producer.sent == events and best >= events and now - changed_at >= _SETTLED_S:
                break
            if crew.crashes > MAX_CRASHES:
                why = f"given up after {crew.crashes} crashes"
                break
            waited_from = changed_at if clock is None else max(changed_at, clock + span_s)
            if now - waited_from > deadline_s:
                why = f"no progress for {deadline_s:.0f} s"
                break
            time.sleep(_POLL_S)
        producer.send_up_to(events)
        producer.flush()
    finally:
        crew.stop()
        progress.close()
    found = compare(expected_counts(schedule.seed, events), read_counts(brokers, counts_topic))
    return Result(
        system=system.name,
        seed=schedule.seed,
        events=events,
        workers=workers,
        kills=done,
        kills_before_recovery=early,
        lost=found.lost,
        doubled=found.doubled,
        wrong_sums=found.wrong_sums,
        counted=found.counted,
        committed=best,
        stalled=bool(why),
        why=why,
        crashes=crew.crashes,
        last_crash=crew.last_crash,
        worst_recovery_s=round(max(recoveries), 2) if recoveries else None,
        took_s=round(time.monotonic() - started, 1),
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
    parser.add_argument("--min-gap", type=float, default=4.0, metavar="S", help="shortest time between kills")
    parser.add_argument("--max-gap", type=float, default=9.0, metavar="S", help="longest time between kills")
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
            for seed in options.seeds:
                schedule = KillSchedule(seed, options.kills, options.min_gap, options.max_gap)
                for system in SYSTEMS:
                    if system.name in options.systems:
                        result = run(
                            system, schedule, events=options.events, workers=options.workers,
                            deadline_s=options.deadline, brokers=broker.bootstrap,
                            folder=logs / f"{system.name.replace(' ', '-')}-{seed}",
                        )  # fmt: skip
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
    os._exit(0)
