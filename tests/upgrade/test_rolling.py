"""A rolling upgrade under load, from the last release to this version and back: nothing lost, nothing doubled.

As docs/upgrade.md has it: the new release's schemas and tables first, then the sink, then one worker after the other; agents last.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.children import Child
from steersman.errors import ConfigError
from steersman.registry import Registry
from tests.faults.check import check
from tests.faults.fleet import SINK
from tests.faults.platform import PARTITIONS, Platform
from tests.steersman.test_registry import Server
from tests.upgrade.released import ROOT, command, released_tree


@pytest.fixture
def registry() -> Iterator[str]:
    """A schema registry: readers of the last release do not ship the contracts of this one."""

    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.url
    server.shutdown()
    server.server_close()


class Upgrade(Platform):
    """A platform whose topics and tables are first made by the last release."""

    def __init__(self, folder: Path, tree: Path, registry: str) -> None:
        self.tree = tree
        self.registry = {"STEERSMAN_REGISTRY_URL": registry}
        super().__init__(
            folder,
            "rolling",
            workers=0,
            sinks=0,
            policies=tree / "tests" / "faults" / "policies.toml",
            env=self.registry | {"STEERSMAN_CHECKPOINT_INTERVAL_S": "0.4", "STEERSMAN_SESSION_TIMEOUT_S": "6"},
        )

    def init(self, tree: Path | None = None) -> None:
        """Do what the compose file's ``init`` does, as a release has it."""
        env = {
            **os.environ, **self.registry, "STEERSMAN_BROKERS": self.kafka.direct, "STEERSMAN_CLICKHOUSE_URL": self.gateway.url,
            "STEERSMAN_TOPIC_PREFIX": self.topics.prefix, "STEERSMAN_PARTITIONS": str(PARTITIONS),
        }  # fmt: skip
        for module in (("streams", "topics"), ("steersman.registry",), ("sinks", "migrate")):
            done = subprocess.run(
                command(tree or self.tree, *module),
                cwd=self.folder,
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr

    def old_load(self, number: int, ledger: Path, *, last: bool = False) -> Child:
        """Some seconds of agents of the last release; the last of them lets everything become due."""
        made = command(
            self.tree, "tests.faults.load", "--brokers", self.kafka.bootstrap, "--prefix", self.topics.prefix, "--seed", str(number),
            "--events", "1000", "--rate", "400", "--ledger", str(ledger), "--duplicates", "0.1", "--disorder", "0.1",
            "--poison", "0.005", "--partitions", str(PARTITIONS if last else 0),
        )  # fmt: skip
        child = Child(f"load-{number}", made, self.folder)
        self._children.append(child)
        return child


class Agents(threading.Thread):
    """Load, again and again until it is told to end, however long an upgrade takes on this machine."""

    def __init__(self, platform: Upgrade) -> None:
        super().__init__(daemon=True)
        self._platform = platform
        self._ending = threading.Event()
        self.ledgers: list[Path] = []
        self.failed = ""

    def run(self) -> None:
        while not self._ending.is_set() and not self.failed:
            self._once()

    def end(self) -> list[Path]:
        """Let the load come to its end; returns its ledgers."""
        self._ending.set()
        self.join(120)
        assert not self.is_alive()
        self._once(last=True)
        assert not self.failed, self.failed
        return self.ledgers

    def _once(self, *, last: bool = False) -> None:
        ledger = self._platform.folder / f"ledger-{len(self.ledgers)}.jsonl"
        self.ledgers.append(ledger)
        load = self._platform.old_load(len(self.ledgers), ledger, last=last)
        if load.wait(100) != 0:
            self.failed = load.tail()


def restored(platform: Platform, name: str) -> int:
    """How often a worker has taken partitions over, by its log."""
    return len(re.findall(r"partition \d+ restored", (platform.folder / f"{name}.log").read_text()))


def test_workers_and_sink_go_from_release_to_release_and_back(tmp_path: Path, registry: str) -> None:
    tree = released_tree(tmp_path / "released")
    old, new = command(tree, "streams", "worker"), command(ROOT, "streams", "worker")
    try:
        platform = Upgrade(tmp_path, tree, registry)
        with platform:
            fleet = platform.fleet
            fleet.start_sink(command=command(tree, "sinks", "run"))
            for name in ("worker-0", "worker-1"):
                fleet.start_worker(name, old)
            agents = Agents(platform)
            agents.start()

            def replace(name: str, program: list[str]) -> None:
                before = restored(platform, name)
                fleet.replace(name, program)
                if name != SINK:
                    platform.wait_until(lambda: restored(platform, name) > before, 60, f"{name} to be at work again")
                time.sleep(0.5)

            platform.wait_until(lambda: restored(platform, "worker-0") > 0, 60, "the old release to be at work")
            platform.wait_until(lambda: len(agents.ledgers) > 1, 60, "some load")
            platform.init(ROOT)
            replace(SINK, command(ROOT, "sinks", "run"))
            replace("worker-0", new)
            replace("worker-1", new)
            replace("worker-0", old)
            replace("worker-0", new)
            ledgers = agents.end()
            verified = platform.settle(120, ledgers)
            reader = Registry(registry, topics=platform.topics)
            findings = check(platform.kafka.direct, platform.gateway.url, platform.topics, ledgers, reader)
            assert all(finding.ok for finding in findings), "\n".join(map(str, findings))
            assert min(finding.expected for finding in findings) > 10
            assert verified["ok"], [one for one in verified["equations"] if not one["ok"]]
    except ConfigError as error:  # no Java
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
