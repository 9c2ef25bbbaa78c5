"""A platform of real processes for fault runs: broker, ClickHouse, workers, sink, and load on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from console.brokers import KafkaCluster
from console.children import ROOT, Child, ChildFailed, python
from sinks.clickhouse import connect
from sinks.migrations import migrate
from sinks.tables import tables
from steersman.topics import Topics
from streams.topics import create_topics
from tests.faults.fleet import SINK, Fleet
from tests.faults.gateway import Gateway
from tests.faults.load import POLICIES
from tests.faults.progress import GroupWatch
from tests.faults.proxy import Proxy
from tests.faults.traces import Mix

PARTITIONS = 4
Say = Callable[[str], None]


class Platform:
    """The processes; a context manager, which starts them and leaves none behind.

    Parameters
    ----------
    folder
        Where data and logs go.
    prefix
        Prefix of the topics.
    proxy
        Stands between the broker and all clients; None for none.
    workers, sinks
        How many at first.
    partitions, policies
        Of the trace and reward topics; the policies file of workers, load and verify.
    worker
        Makes the command of the worker of a name; `streams worker` by default.
    env
        Settings of workers and sink over the usual ones, which save and flush often.

    Attributes
    ----------
    kafka, gateway, fleet
        Its parts.
    topics
        Names of its topics.
    """

    kafka: KafkaCluster
    gateway: Gateway
    fleet: Fleet

    def __init__(
        self,
        folder: Path,
        prefix: str,
        *,
        proxy: Proxy | None = None,
        workers: int = 1,
        sinks: int = 1,
        partitions: int = PARTITIONS,
        policies: Path = POLICIES,
        worker: Callable[[str], Sequence[str]] = lambda name: python("streams", "worker"),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.topics = Topics(prefix)
        self._proxy = proxy
        self._workers, self._sinks = workers, sinks
        self._partitions, self._policies, self._worker = partitions, policies, worker
        self._env = dict(env or {})
        self._children: list[Child] = []

    def load(self, seed: int, events: int, rate: float, ledger: Path, mix: Mix, name: str = "load") -> Child:
        """Start a producer of load, which closes every partition at its end; see `tests.faults.load`."""
        child = Child(
            name,
            python(
                "tests.faults.load", "--brokers", self.kafka.bootstrap, "--prefix", self.topics.prefix,
                "--seed", str(seed), "--events", str(events), "--rate", str(rate),
                "--ledger", str(ledger), "--partitions", str(self._partitions), "--policies", str(self._policies), "--duplicates", str(mix.duplicates),
                "--poison", str(mix.poison), "--bombs", str(mix.bombs), "--garbage", str(mix.garbage),
                "--disorder", str(mix.disorder),
            ),
            self.folder,
        )  # fmt: skip
        self._children.append(child)
        return child

    def watch(self, group: str) -> GroupWatch:
        """Watch the progress of a group, ``streams`` or ``sink``, on all topics that it reads."""
        read = [self.topics.trace, self.topics.reward] if group == "streams" else self._stored_topics()
        return GroupWatch(self.kafka.direct, f"{self.topics.prefix}-{group}", read)

    def settle(self, timeout_s: float, ledgers: Sequence[Path]) -> dict[str, Any]:
        """Wait until all is processed, return what ``steersman verify`` says, and let workers and sink end in this order.

        That they do, and leave nothing undone, is part of the test.
        """
        groups = [self.watch("streams"), self.watch("sink")]

        def quiet(watched: list[GroupWatch]) -> bool:
            looks = [group.look() for group in watched]
            return all(look is not None and look.lag == 0 for look in looks)

        try:
            self._await_twice(lambda: quiet(groups), timeout_s, "everything to be processed")
            answer = self._verify(ledgers)
            for name in self.fleet.workers:
                code = self.fleet.retire(name)
                # The signal itself ends a process that has only just been started again.
                assert code in (0, -signal.SIGTERM), f"{name} ended with exit code {code}\n{self.fleet.tails()}"
            self._await_twice(lambda: quiet(groups[1:]), timeout_s, "everything to be stored")
            for name in self.fleet.sinks:
                code = self.fleet.retire(name)
                assert code == 0, f"{name} ended with exit code {code}\n{self.fleet.tails()}"
            return answer
        finally:
            for group in groups:
                group.close()

    def wait_until(
        self, until: Callable[[], bool], timeout_s: float, what: str, each: Callable[[], None] = lambda: None
    ) -> None:
        """Wait for something; ChildFailed, with the ends of all logs, when it takes longer than that."""
        deadline = time.monotonic() + timeout_s
        while not until():
            each()
            if time.monotonic() > deadline:
                raise ChildFailed(f"waited {timeout_s:g} s for {what}\n{self.fleet.tails()}")
            time.sleep(0.1)

    def _verify(self, ledgers: Sequence[Path]) -> dict[str, Any]:
        """Ask ``steersman verify``."""
        command = [
            str(ROOT / "bin/steersman"), "verify", "--brokers", self.kafka.direct, "--clickhouse", self.gateway.url,
            "--json",
        ]  # fmt: skip
        for ledger in ledgers:
            command += ["--producer-ledger", str(ledger)]
        env = {
            **os.environ, **self._env, "STEERSMAN_TOPIC_PREFIX": self.topics.prefix, "STEERSMAN_POLICIES": str(self._policies),
            "STEERSMAN_HOME": str(self.folder),
        }  # fmt: skip
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode in (0, 4), f"steersman verify: exit {done.returncode}\n{done.stdout}{done.stderr}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _await_twice(self, until: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait until something holds, and still does a second later: outputs of the last input may be on their way."""

        def held() -> bool:
            if not until():
                return False
            time.sleep(1.0)
            return until()

        self.wait_until(held, timeout_s, what)

    def _start(self) -> None:
        self.kafka = KafkaCluster(
            self.folder,
            1,
            advertise=self._advertise,
            # Who died is missed sooner.
            properties={"group.min.session.timeout.ms": "2000"},
        )
        self.gateway = Gateway(self.folder, faulty=True)
        self.init()
        self.fleet = Fleet(
            self.folder,
            {
                "STEERSMAN_BROKERS": self.kafka.bootstrap,
                "STEERSMAN_CLICKHOUSE_URL": self.gateway.url,
                "STEERSMAN_POLICIES": str(self._policies),
                "STEERSMAN_TOPIC_PREFIX": self.topics.prefix,
                "STEERSMAN_SESSION_TIMEOUT_S": "3",
                "STEERSMAN_CHECKPOINT_INTERVAL_S": "0.4",
                "STEERSMAN_LEARNER_CHECKPOINT_INTERVAL_S": "0.8",
                "STEERSMAN_SINK_FLUSH_S": "0.5",
                "STEERSMAN_SINK_RETRY_MAX_S": "2",
                **self._env,
            },
            self.watch("streams"),
            self.watch("sink"),
            self._worker,
        )
        self.fleet.scale(self._workers)
        for number in range(self._sinks):
            self.fleet.start_sink(SINK if number == 0 else f"{SINK}-{number + 1}")

    def init(self) -> None:
        """Create topics and tables."""
        create_topics(self.kafka.direct, self.topics, self._partitions)
        client = connect(self.gateway.url)
        migrate(client)
        client.close()

    def _advertise(self, number: int, port: int) -> int:
        if self._proxy is None:
            return port
        self._proxy.target = port
        return self._proxy.port

    def _stored_topics(self) -> list[str]:
        return sorted({table.topic for table in tables(self.topics)})

    def __enter__(self) -> Platform:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        for child in self._children:
            child.kill()
        if hasattr(self, "fleet"):
            self.fleet.close()
        if hasattr(self, "gateway"):
            self.gateway.kill()
        if hasattr(self, "kafka"):
            self.kafka.stop()
