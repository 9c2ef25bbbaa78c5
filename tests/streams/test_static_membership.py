"""A worker that is back under its name has its partitions again, and the other worker does not hear of it."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from console.brokers import Broker
from console.children import Child
from steersman.topics import Topics
from streams.topics import create_topics

ROOT = Path(__file__).resolve().parents[2]
POLICIES = """
[[policy]]
name = "p"
baseline = { model = "large" }
[policy.knobs]
model = ["small", "large"]
"""


def test_a_restart_within_the_session_moves_no_partition(kafka: Broker, tmp_path: Path) -> None:
    topics = Topics(f"static{os.getpid()}")
    create_topics(kafka.bootstrap, topics, 4)
    (tmp_path / "policies.toml").write_text(POLICIES)

    def start(name: str) -> Child:
        command = [sys.executable, "-m", "streams", "worker", "--group-instance-id", name]
        env = {
            "STEERSMAN_BROKERS": kafka.bootstrap, "STEERSMAN_TOPIC_PREFIX": topics.prefix, "STEERSMAN_SESSION_TIMEOUT_S": "30",
            "STEERSMAN_POLICIES": str(tmp_path / "policies.toml"),
        }  # fmt: skip
        return Child(name, command, tmp_path, env)

    def restored(name: str) -> list[tuple[str, str]]:
        """Stage and partition of everything a worker has taken over so far, in order."""
        return re.findall(r"(\w+): partition (\d+) restored", (tmp_path / f"{name}.log").read_text())

    def wait(until: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not until():
            assert time.monotonic() < deadline, f"{what}\n{(tmp_path / 'one.log').read_text()}"
            time.sleep(0.1)

    running = {"one": start("one")}
    try:
        wait(lambda: len(restored("one")) == 8, "the first worker to have all")
        running["two"] = start("two")
        wait(lambda: len(restored("two")) == 4 and len(restored("one")) == 12, "both to have their share")
        own, other = set(restored("two")), restored("one")
        running["two"].signal(signal.SIGTERM)
        assert running["two"].wait(20) == 0
        running["two"] = start("two")
        wait(lambda: len(restored("two")) == 8, "the second worker to be back")
        time.sleep(
            1.5
        )  # in a rebalance nobody gets anything before all have joined: the other would restore at the same time
        assert set(restored("two")[4:]) == own
        assert restored("one") == other
    finally:
        for child in running.values():
            child.stop()
