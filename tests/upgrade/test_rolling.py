"""A rolling upgrade under load, from the last release to this version and back: nothing lost, nothing doubled.

As docs/upgrade.md has it: the new release's schemas and tables first, then the sink, then one worker after the other; agents last.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.children import Child
from steersman.errors import ConfigError
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

    def old_load(self, events: int, rate: float, ledger: Path) -> Child:
        """Agents of the last release."""
        made = command(
            self.tree, "tests.faults.load", "--brokers", self.kafka.bootstrap, "--prefix", self.topics.prefix, "--seed", "5",
            "--events", str(events), "--rate", str(rate), "--ledger", str(ledger), "--partitions", str(PARTITIONS),
            "--duplicates", "0.1", "--disorder", "0.1", "--poison", "0.005",
        )  # fmt: skip
        child = Child("load", made, self.folder)
        self._children.append(child)
        return child


def restored(platform: Platform, name: str) -> int:
    """How often a worker has taken partitions over, by its log."""
    return len(re.findall(r"partition \d+ restored", (platform.folder / f"{name}.log").read_text()))


def test_workers_and_sink_go_from_release_to_release_and_back(tmp_path: Path, registry: str) -> None:
    tree = released_tree(tmp_path / "released")
    ledger = tmp_path / "ledger.jsonl"
    old, new = command(tree, "streams", "worker"), command(ROOT, "streams", "worker")
    try:
        platform = Upgrade(tmp_path, tree, registry)
        with platform:
            fleet = platform.fleet
            fleet.start_sink(command=command(tree, "sinks", "run"))
            for name in ("worker-0", "worker-1"):
                fleet.start_worker(name, old)
            load = platform.old_load(9_000, 600, ledger)

            def replace(name: str, program: list[str]) -> None:
                before = restored(platform, name)
                fleet.replace(name, program)
                if name != SINK:
                    platform.wait_until(lambda: restored(platform, name) > before, 60, f"{name} to be at work again")
                time.sleep(0.5)

            platform.wait_until(lambda: restored(platform, "worker-0") > 0, 60, "the old release to be at work")
            time.sleep(1.0)
            platform.init(ROOT)
            replace(SINK, command(ROOT, "sinks", "run"))
            replace("worker-0", new)
            replace("worker-1", new)
            replace("worker-0", old)
            replace("worker-0", new)
            assert load.exit_code is None, "all of that was to be under load"
            load.signal(signal.SIGUSR1)
            platform.wait_until(lambda: load.exit_code is not None, 60, "the end of the load")
            assert load.exit_code == 0, load.tail()
            verified = platform.settle(120, [ledger])
            findings = check(platform.kafka.direct, platform.gateway.url, platform.topics, [ledger])
            assert all(finding.ok for finding in findings), "\n".join(map(str, findings))
            assert min(finding.expected for finding in findings) > 10
            assert verified["ok"], [one for one in verified["equations"] if not one["ok"]]
            assert fleet.deaths == [], "every process ended in an orderly way"
    except ConfigError as error:  # no Java
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
