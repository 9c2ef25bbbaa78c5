"""The local stack: broker, ClickHouse endpoint, stream worker, sink, doors and live page as child processes of one console."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from console.brokers import Broker, start_kafka, start_tansu
from console.children import Child, ChildFailed, Children, free_port, python
from console.gateway.users import READER, WRITER, make_users, passwords
from console.target import home, registry_of, state_file
from learners.policies_file import load_policies
from serving.private_file import write_private
from sinks.clickhouse import connect, shown
from sinks.migrations import migrate
from steersman.errors import ConfigError
from steersman.kafka_security import kafka_security
from steersman.subscriber import PolicySubscriber
from steersman.topics import Topics
from streams.settings import StreamSettings
from streams.topics import create_topics

Progress = Callable[[str], None]


class Stack:
    """Everything between the agents and SQL, on this machine.

    Parameters
    ----------
    name
        Folder below the console's home where data and logs go.
    policies
        Path of the policies file.
    kafka
        Apache Kafka instead of the embedded broker.
    brokers, clickhouse
        Addresses of running ones to use instead of starting our own.
    port, http_port, doors_port, page_port
        Ports of the broker, of the ClickHouse endpoint, of the doors and of the live page, 0 for free ones.
    fresh
        Delete the data of an earlier run first.
    partitions
        Partitions of the trace and reward topics.
    """

    def __init__(
        self,
        name: str,
        policies: Path,
        *,
        kafka: bool = False,
        brokers: str | None = None,
        clickhouse: str | None = None,
        port: int = 0,
        http_port: int = 0,
        doors_port: int = 0,
        page_port: int = 0,
        fresh: bool = False,
        partitions: int = 2,
    ):
        self.folder = home() / name
        self.users = self.folder / "clickhouse-users.toml"
        self.logs = self.folder / "logs"
        self.policies = policies
        self.topics = Topics(os.environ.get("STEERSMAN_TOPIC_PREFIX", "steersman"))
        self.brokers = brokers or ""
        self.clickhouse = clickhouse or ""
        self.clickhouse_read = clickhouse or ""
        self._own_store = not clickhouse
        self._kafka, self._port, self._http_port = kafka, port, http_port
        self._doors_port = doors_port or free_port()
        self.doors = f"http://127.0.0.1:{self._doors_port}"
        self._page_port = page_port or free_port()
        self.page = f"http://127.0.0.1:{self._page_port}"
        self.monitors: dict[str, str] = {}
        self._partitions = partitions
        self._broker: Broker | None = None
        self.children = Children(self.logs)
        if fresh and self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def store(self) -> str:
        """Where the store is and where its passwords are, for people."""
        return shown(self.clickhouse_read) + (f" (passwords in {self.users})" if self._own_store else "")

    @property
    def env(self) -> dict[str, str]:
        """Environment in which every part finds the broker and the policies; the store is for those alone that need it."""
        # The embedded broker lets a new member of a group wait for half the session timeout.
        embedded = {"STEERSMAN_SESSION_TIMEOUT_S": "2"} if self._broker is not None and not self._kafka else {}
        return {
            **embedded,
            "STEERSMAN_BROKERS": self.brokers,
            "STEERSMAN_POLICIES": str(self.policies.absolute()),
            "STEERSMAN_TOPIC_PREFIX": self.topics.prefix,
        }

    def _monitored(self, name: str) -> dict[str, str]:
        """Environment of a part that serves its metrics and its health on a port of its own."""
        port = free_port()
        self.monitors[name] = f"http://127.0.0.1:{port}"
        return {**self.env, "STEERSMAN_METRICS_PORT": str(port), "STEERSMAN_OTLP_PARTITIONS": str(self._partitions)}

    def pids(self) -> dict[str, int]:
        """Return the process id of every part that was started here, by name."""
        broker = {"broker": self._broker.child.pid} if self._broker is not None else {}
        return broker | {child.name: child.pid for child in self.children.children}

    def start(self, progress: Progress) -> None:
        """Start every part and wait until agents could decide.

        Raises
        ------
        SteersmanError
            When a part cannot be started; what was started is stopped first.
        """
        try:
            self._start(progress)
        except BaseException:
            self.stop()
            raise

    def _start(self, progress: Progress) -> None:
        specs = load_policies(self.policies)
        if not self.brokers:
            if kafka_security("127.0.0.1:0").protocol != "PLAINTEXT":
                raise ConfigError(
                    "the broker that would be started here speaks PLAINTEXT, on this machine only: unset STEERSMAN_KAFKA_*, or "
                    "name your own brokers with --brokers"
                )
            kind = "Apache Kafka" if self._kafka else "embedded broker"
            progress(f"starting {kind}")
            self._broker = (
                start_kafka(self.folder / "kafka", self._port) if self._kafka else start_tansu(self.logs, self._port)
            )
            self.brokers = self._broker.bootstrap
        if not self.clickhouse:
            progress("starting ClickHouse (chDB behind its HTTP interface)")
            port = self._http_port or free_port()
            make_users(self.users)
            known = passwords(self.users)
            self.clickhouse, self.clickhouse_read = (
                f"http://{name}:{known[name]}@127.0.0.1:{port}" if name in known else f"http://127.0.0.1:{port}"
                for name in (WRITER, READER)
            )
            command = python("console.gateway", "--path", str(self.folder / "clickhouse"), "--port", str(port))
            gateway = self.children.start("gateway", [*command, "--users", str(self.users)])
            gateway.wait_until(lambda: _answers(f"http://127.0.0.1:{port}/ping"), 60, "answering /ping")
        progress("creating topics and tables")
        create_topics(self.brokers, self.topics, self._partitions)
        with contextlib.closing(connect(self.clickhouse)) as client:
            migrate(client)
        progress("starting the stream worker, the sink and the doors")
        # Stopping goes in reverse: the sink after the worker, so that it stores the worker's last outputs.
        store = {"STEERSMAN_CLICKHOUSE_URL": self.clickhouse}
        self.children.start("sink", python("sinks", "run"), {**self._monitored("sink"), **store})
        worker = self.children.start("worker", python("streams", "worker"), self._monitored("worker"))
        command = python("doors", "--port", str(self._doors_port))
        doors = self.children.start("doors", command, self._monitored("doors"))
        self._await_policies(worker, {(s.tenant, s.name) for s in specs})
        doors.wait_until(lambda: _answers(f"{self.monitors['doors']}/livez"), 60, "opening")
        metrics = ",".join(f"{name}={url}/metrics" for name, url in self.monitors.items())
        env = {**self.env, "STEERSMAN_PAGE_METRICS": metrics, "STEERSMAN_CLICKHOUSE_URL": self.clickhouse_read}
        page = self.children.start("page", python("page", "--port", str(self._page_port)), env)
        page.wait_until(lambda: _answers(f"{self.page}/livez"), 60, "opening")
        write_private(  # the addresses hold passwords
            state_file(),
            json.dumps(
                {
                    "pid": os.getpid(),
                    "brokers": self.brokers,
                    "clickhouse": self.clickhouse,
                    "clickhouse_read": self.clickhouse_read,
                    "doors": self.doors,
                    "page": self.page,
                    "prices": str(StreamSettings.read().prices or ""),
                    **{f"metrics_{name}": f"{url}/metrics" for name, url in self.monitors.items()},
                    "folder": str(self.folder),
                }
            ),
        )

    def _await_policies(self, worker: Child, wanted: set[tuple[str, str]]) -> None:
        """Wait until a snapshot of every policy is on the policy topic: then agents can decide."""
        for tenant in {t for t, _ in wanted}:
            registry = registry_of(self.topics)
            subscriber = PolicySubscriber(self.brokers, topics=self.topics, tenant=tenant, registry=registry)
            subscriber.start()
            try:
                worker.wait_until(
                    lambda s=subscriber, t=tenant: all(s.get(p) for u, p in wanted if u == t),  # type: ignore[misc]
                    60,
                    "publishing the first policies",
                )
            finally:
                subscriber.close()

    def check(self) -> None:
        """Raise when a part has died.

        Raises
        ------
        ChildFailed
            Names the part and shows the end of its log.
        """
        dead = self.children.dead()
        if self._broker and self._broker.child.exit_code is not None:
            dead.append(self._broker.child)
        if dead:
            child = dead[0]
            raise ChildFailed(
                f"{child.name} ended with exit code {child.exit_code}; the end of {child.log}:\n{child.tail()}"
            )

    def wait(self, until: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a condition while every part lives; returns whether it came true in time."""
        deadline = time.monotonic() + timeout_s
        while not until():
            self.check()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def stop(self) -> None:
        """Stop every part: the doors, the worker, then the sink, then ClickHouse, the broker last."""
        self.children.stop()
        if self._broker is not None:
            self._broker.stop()
            self._broker = None
        state_file().unlink(missing_ok=True)

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:  # noqa: S310
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
