"""The platform's own stages in the real worker, over a kill -9: a trace opened before it is rewarded once, after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from console.brokers import Broker
from steersman.codec import Codec
from steersman.topics import Topics
from streams.topics import create_topics
from tests.streams.trace_events import event, hex_id, span_id

ROOT = Path(__file__).resolve().parents[2]
POLICIES = """
[[policy]]
name = "p"
baseline = { model = "large", top_k = 8 }
[policy.knobs]
model = ["small", "large"]
top_k = [4, 8]
[policy.reward]
window_s = 600
settle_ms = 100
weights = { quality = 1.0, cost = 1.0 }
scales = { cost_micro_usd = 1000.0 }

[[policy]]
name = "q"
baseline = { model = "large" }
[policy.knobs]
model = ["small", "large"]
"""
_numbers = iter(range(1000))


class Platform:
    """Topics, one worker at a time, and what it publishes."""

    def __init__(self, bootstrap: str, tmp_path: Path) -> None:
        self.bootstrap = bootstrap
        self.topics = Topics(f"f{os.getpid()}n{next(_numbers)}")
        create_topics(bootstrap, self.topics, 3)
        self.log = tmp_path / "worker.log"
        self.policies = tmp_path / "policies.toml"
        self.policies.write_text(POLICIES)
        self.codec = Codec("trace_event")
        self.worker: subprocess.Popen[bytes] | None = None
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "log_level": 0,
            }
        )

    def start(self) -> None:
        command = [
            sys.executable, "-m", "streams", "worker", "--brokers", self.bootstrap, "--policies", str(self.policies),
            "--topic-prefix", self.topics.prefix,
        ]  # fmt: skip
        environment = {**os.environ, "STEERSMAN_SESSION_TIMEOUT_S": "6", "STEERSMAN_CHECKPOINT_INTERVAL_S": "0.2"}
        with self.log.open("ab") as log:
            self.worker = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log, stdout=log)

    def end(self, number: int) -> int:
        assert self.worker is not None
        self.worker.send_signal(number)
        return self.worker.wait(15)

    def send(self, *events: dict[str, Any]) -> None:
        for one in events:
            self.producer.produce(self.topics.trace, key=one["trace_id"].encode(), value=self.codec.encode(one))
        assert self.producer.flush(20) == 0

    def read(
        self, topic: str, contract: str, enough: Callable[[list[dict[str, Any]]], bool], timeout_s: float = 40
    ) -> list[Any]:
        """All records of a topic so far, once they are enough, and a moment longer for those too many."""
        codec = Codec(contract, max_bytes=1 << 24)
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "reader", "enable.auto.commit": False})
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        found: list[dict[str, Any]] = []
        deadline, settled = time.monotonic() + timeout_s, False
        try:
            while True:
                message = consumer.poll(0.5)
                if message is not None:
                    found.append(codec.decode(message.value(), message.headers() or ()))
                elif settled:
                    return found
                elif enough(found):
                    settled = True
                else:
                    assert time.monotonic() < deadline, f"{len(found)} records\n{self.log.read_text()[-3000:]}"
        finally:
            consumer.close()

    def close(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            self.worker.kill()
            self.worker.wait()


@pytest.fixture
def platform(kafka: Broker, tmp_path: Path) -> Iterator[Platform]:
    platform = Platform(kafka.bootstrap, tmp_path)
    yield platform
    platform.close()


def opened(trace: str, now: int) -> list[dict[str, Any]]:
    """A decision inside a span that cost 300 micro-dollars, and the end of the trace."""
    return [
        event("DECISION", now, "decision", trace=trace, parent_span_id=span_id("work")),
        event(
            "RETRIEVAL",
            now + 10,
            "work",
            trace=trace,
            parent_span_id=span_id("root"),
            duration_us=9,
            cost_micro_usd=300,
        ),
        event("END", now + 20, "root", trace=trace),
    ]


def highest(snapshots: list[dict[str, Any]]) -> dict[str, int]:
    versions: dict[str, int] = {}
    for snapshot in snapshots:
        versions[snapshot["policy"]] = max(versions.get(snapshot["policy"], -1), snapshot["version"])
    return versions


def test_a_trace_opened_before_a_kill_is_rewarded_once_after_it(platform: Platform) -> None:
    traces = [hex_id(f"trace {n}", 32) for n in range(60)]
    platform.start()
    snapshots = platform.read(platform.topics.policy, "policy_snapshot", lambda found: len(found) >= 2)
    assert highest(snapshots) == {"p": 0, "q": 0}

    now = int(time.time() * 1e6)
    platform.send(*(one for n, trace in enumerate(traces) for one in opened(trace, now + n)))
    time.sleep(1.5)  # long enough for a checkpoint, so that the events are not simply read again
    # Half the feedback arrives just before the kill, half while nobody is there.
    now = int(time.time() * 1e6)
    judged = [event("FEEDBACK", now + n, "user", trace=trace, value=n / 100) for n, trace in enumerate(traces)]
    platform.send(*judged[:30])
    platform.end(signal.SIGKILL)
    platform.send(*judged[30:])
    platform.start()
    rewards = platform.read(platform.topics.reward, "reward", lambda found: len({r["trace_id"] for r in found}) == 60)

    distinct = {(r["source_partition"], r["source_offset"], r["seq"]): r for r in rewards}
    assert all(distinct[r["source_partition"], r["source_offset"], r["seq"]] == r for r in rewards)
    assert len(distinct) == 60
    by_trace = {r["trace_id"]: r for r in distinct.values()}
    for n, trace in enumerate(traces):
        reward = by_trace[trace]
        assert (reward["quality"], reward["cost_micro_usd"], reward["latency_us"]) == (n / 100, 300, 9)
        assert reward["utility"] == pytest.approx(n / 100 - 0.3)
        assert reward["closed_by"] == "COMPLETE"
    snapshots = platform.read(platform.topics.policy, "policy_snapshot", lambda found: highest(found).get("p") == 60)
    assert highest(snapshots) == {"p": 60, "q": 0}
    assert {s["applied_n"] for s in snapshots if s["version"] == 60} == {60}

    # And over an orderly end: nothing is learned twice, and the version goes on from where it was.
    assert platform.end(signal.SIGTERM) == 0
    platform.start()
    more = hex_id("one more", 32)
    now = int(time.time() * 1e6)
    platform.send(*opened(more, now), event("FEEDBACK", now + 30, "user", trace=more, value=1.0))
    snapshots = platform.read(platform.topics.policy, "policy_snapshot", lambda found: highest(found).get("p", 0) >= 61)
    assert highest(snapshots) == {"p": 61, "q": 0}
    assert platform.end(signal.SIGTERM) == 0


def test_one_stage_per_worker_makes_the_same_whole(platform: Platform) -> None:
    command = [sys.executable, "-m", "streams", "worker", "--policies", str(platform.policies)]
    environment = {
        **os.environ, "STEERSMAN_BROKERS": platform.bootstrap, "STEERSMAN_TOPIC_PREFIX": platform.topics.prefix,
        "STEERSMAN_SESSION_TIMEOUT_S": "6",
    }  # fmt: skip
    with platform.log.open("ab") as log:
        workers = [
            subprocess.Popen([*command, "--stages", stage], cwd=ROOT, env=environment, stderr=log, stdout=log)
            for stage in ("trace", "learn")
        ]
    try:
        trace = hex_id("apart", 32)
        now = int(time.time() * 1e6)
        platform.send(*opened(trace, now), event("FEEDBACK", now + 30, "user", trace=trace, value=1.0))
        snapshots = platform.read(platform.topics.policy, "policy_snapshot", lambda found: highest(found).get("p") == 1)
        assert highest(snapshots)["p"] == 1
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        assert [worker.wait(15) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
