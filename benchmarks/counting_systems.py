"""The systems that do the counting job, and their workers, started again whenever they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.counting_job import PARTITIONS
from benchmarks.plain_faust_worker import TABLE
from console.children import Child, python
from steersman.topics import Topics

SESSION_TIMEOUT_S = 3.0
MAX_CRASHES = 20
_USAGE = 2  # exit code of a wrong argument or setting, of both kinds of worker


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
