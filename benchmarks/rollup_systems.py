"""The systems that do the rollup job: how each is run, and how its windows are read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.broker import Committed, Message, create, drop, fill, on_work_core, read, topics_of
from benchmarks.environments import STREAMING
from benchmarks.payload import POLICIES
from benchmarks.rollup_job import PARTITIONS, from_rollups
from console.children import Child, ChildFailed, python
from steersman.topics import Topics
from streams.topics import create_topics

_TIMEOUT_S = 120.0
_LOOK_S = 0.2


@dataclass(frozen=True)
class Outcome:
    """One run of one system.

    Attributes
    ----------
    records
        Taken.
    wall_s, cpu_s
        From the first record to the last: time on the clock, and CPU time of the process's threads; unit: seconds.
    windows
        What came out; None for a system that only takes the records.
    """

    records: int
    wall_s: float
    cpu_s: float
    windows: dict[tuple[str, int], list[int]] | None

    @property
    def rate(self) -> float:
        """Records per second."""
        return self.records / self.wall_s

    @property
    def cpu_us(self) -> float:
        """CPU time of a record; unit: microseconds."""
        return self.cpu_s / self.records * 1e6


Run = Callable[[str, str, Path, Sequence[Message]], Outcome]
"""Runs a system, given the broker, a name that nobody has used, a folder of its own and the messages."""


@dataclass(frozen=True)
class System:
    """What does the job.

    Attributes
    ----------
    name
        As reported.
    ours
        Whether it is the platform's, rather than a peer's.
    share
        Of the records that the fastest systems take: each runs for some seconds.
    run
        Runs it.
    """

    name: str
    ours: bool
    share: float
    run: Run


def _stand_alone(command: Callable[..., list[str]], module: str, *further: str) -> Run:
    """Run a program that reads one topic and writes its result once it has seen every record."""

    def run(brokers: str, name: str, folder: Path, messages: Sequence[Message]) -> Outcome:
        create(brokers, name, PARTITIONS)
        fill(brokers, name, messages)
        result = folder / "result.json"
        arguments = [
            "--brokers", brokers, "--topic", name, "--partitions", str(PARTITIONS), "--records", str(len(messages)),
            "--result", str(result), "--data", str(folder / "data"), *further,
        ]  # fmt: skip
        child = Child(name, on_work_core(command(module, *arguments)), folder)
        try:
            # Its last act is the result; it may be gone the moment after.
            _await(child, result.exists, "its result")
        finally:
            child.kill()
            drop(brokers, topics_of(brokers, name))
        measured = json.loads(result.read_text())
        return Outcome(measured["records"], measured["wall_s"], measured["cpu_s"], _windows(measured["windows"]))

    return run


def _trace_worker(brokers: str, name: str, folder: Path, messages: Sequence[Message]) -> Outcome:
    """Run the platform's worker with its trace stage."""
    topics = Topics(name)
    create_topics(brokers, topics, PARTITIONS)
    fill(brokers, topics.trace, messages)
    result = folder / "result.json"
    committed = Committed(brokers, f"{name}-streams", topics.trace, PARTITIONS)
    child = Child(
        name,
        on_work_core(python("benchmarks.timed_worker", "--result", str(result))),
        folder,
        {"STEERSMAN_BROKERS": brokers, "STEERSMAN_TOPIC_PREFIX": name, "STEERSMAN_POLICIES": str(POLICIES)},
    )
    try:
        _await(child, lambda: committed.records() >= len(messages), "every record committed")
        code = child.stop(grace_s=20)
        if code or not result.exists():
            raise ChildFailed(f"{name} ended with exit code {code}:\n{child.tail()}")
        windows = from_rollups(read(brokers, topics.rollup))
    finally:
        child.kill()
        committed.close()
        drop(brokers, topics_of(brokers, name))
    measured = json.loads(result.read_text())
    if measured["records"] != len(messages):
        raise ChildFailed(f"{name} took {measured['records']} records, not {len(messages)}:\n{child.tail()}")
    return Outcome(measured["records"], measured["wall_s"], measured["cpu_s"], windows)


def _await(child: Child, until: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not until():
        if child.exit_code is not None and not until():
            raise ChildFailed(f"{child.name} ended with exit code {child.exit_code} before {what}:\n{child.tail()}")
        if time.monotonic() > deadline:
            raise ChildFailed(f"{child.name} did not come to '{what}' within {_TIMEOUT_S:g} s:\n{child.tail()}")
        time.sleep(_LOOK_S)


def _windows(found: list[list[Any]]) -> dict[tuple[str, int], list[int]] | None:
    return {(key, start): total for key, start, *total in found} or None


PLAIN_FAUST, FAUST_TABLE = "Faust, plain agent", "Faust, tumbling table"
QUIX, BYTEWAX = "Quix Streams, stateful window", "Bytewax, window"
ROLLUP, TRACE_WORKER = "steersman, rollup job alone", "steersman, worker --stages trace"
EMPTY = "steersman, batch transport, empty agent"

SYSTEMS = (
    System(FAUST_TABLE, False, 0.05, _stand_alone(STREAMING.command, "benchmarks.peers.faust_table")),
    System(PLAIN_FAUST, False, 0.125, _stand_alone(STREAMING.command, "benchmarks.peers.plain_faust")),
    System(QUIX, False, 0.25, _stand_alone(STREAMING.command, "benchmarks.peers.quix")),
    System(BYTEWAX, False, 0.75, _stand_alone(STREAMING.command, "benchmarks.peers.bytewax_window")),
    System(TRACE_WORKER, True, 0.5, _trace_worker),
    System(ROLLUP, True, 1.0, _stand_alone(python, "benchmarks.batch_agent", "--job", "rollup")),
    System(EMPTY, True, 1.0, _stand_alone(python, "benchmarks.batch_agent", "--job", "empty")),
)
