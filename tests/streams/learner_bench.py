"""Learning workers as processes on topics of their own, fed with hand-made rewards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from learners.policies_file import parse_policies
from learners.spec import PolicySpec
from steersman.codec import Codec
from steersman.topics import Topics
from streams.learning_stage import partition_of
from streams.partition_log import PartitionLog
from streams.topics import MAX_STATE_BYTES, create_topics
from tests.streams.test_learning_stage import reward

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 2
POLICY = """
[[policy]]
name = "a/one"
baseline = {{ model = "large", k = 8 }}
[policy.knobs]
model = ["small", "large"]
k = [4, 8]
[policy.reward]
metric = "{metric}"
[policy.learning]
shards = {shards}
"""
_numbers = iter(range(1000))


class LearnerBench:
    rebuild_s = 120.0

    def __init__(self, bootstrap: str, tmp_path: Path, shards: int = 1) -> None:
        self.bootstrap = bootstrap
        self.shards = shards
        self.topics = Topics(f"l{os.getpid()}n{next(_numbers)}")
        self.tmp_path = tmp_path
        self.workers: list[subprocess.Popen[bytes]] = []
        create_topics(bootstrap, self.topics, PARTITIONS)
        self.codec = Codec("reward")
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "message.max.bytes": MAX_STATE_BYTES,
                "log_level": 0,
            }
        )

    def policies(self, metric: str = "quality") -> Path:
        path = self.tmp_path / f"{metric}.toml"
        path.write_text(POLICY.format(metric=metric, shards=self.shards))
        return path

    def spec(self, metric: str = "quality") -> PolicySpec:
        spec = parse_policies(POLICY.format(metric=metric, shards=self.shards)).get("default", "a/one")
        assert spec is not None
        return spec

    @property
    def partition(self) -> int:
        return partition_of("default/a/one", PARTITIONS)

    def start(self, metric: str = "quality", group: str | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "streams", "worker", "--stages", "learn"]
        if group is not None:
            command = [sys.executable, str(Path(__file__).with_name("learn_worker.py"))]
        environment = {
            **os.environ,
            "STEERSMAN_BROKERS": self.bootstrap,
            "STEERSMAN_TOPIC_PREFIX": self.topics.prefix,
            "STEERSMAN_POLICIES": str(self.policies(metric)),
            "STEERSMAN_SESSION_TIMEOUT_S": "6",
            "STEERSMAN_LEARNER_CHECKPOINT_INTERVAL_S": "0.3",
            "STEERSMAN_MAX_POLL_RECORDS": "50",
            "STEERSMAN_PUBLISH_INTERVAL_S": "0.05",
            "OTHER_GROUP": group or "",
        }
        with (self.tmp_path / f"worker{len(self.workers)}.log").open("wb") as log:
            self.workers.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log, stdout=log))
        return self.workers[-1]

    def send(self, start: int, end: int, metric: str = "quality", **changes: Any) -> None:
        """Rewards of three source partitions, or of as many as there are shards, every seventh of them twice."""
        spec = self.spec(metric)
        for n in range(start, end):
            record = reward(
                spec,
                n,
                quality=(n * 37 % 101) / 100,
                arm=spec.arms.labels[n % 4],
                source_partition=n % max(3, self.shards),
                **changes,
            )
            for _ in range(2 if n % 7 == 0 else 1):
                self.produce(record, spec.reward_key(n % max(3, self.shards)))
        assert self.producer.flush(30) == 0

    def produce(self, record: dict[str, Any], key: str) -> None:
        self.producer.produce(
            self.topics.reward,
            key=key.encode(),
            value=self.codec.encode(record),
            partition=partition_of(key, PARTITIONS),
        )

    def snapshots(self) -> list[dict[str, Any]]:
        codec = Codec("policy_snapshot", max_bytes=MAX_STATE_BYTES)
        return [codec.decode(r.value, r.headers) for r in PartitionLog(self.bootstrap, self.topics.policy, 0)]

    def raw_policy(self) -> bytes:
        """The last record of the policy topic, as it is."""
        *_, last = PartitionLog(self.bootstrap, self.topics.policy, 0)
        assert last.value is not None
        return last.value

    def ranks(self) -> list[tuple[int, int]]:
        return [(s["epoch"], s["version"]) for s in self.snapshots()]

    def alerts(self) -> list[dict[str, Any]]:
        codec = Codec("alert")
        return [codec.decode(r.value, r.headers) for r in PartitionLog(self.bootstrap, self.topics.alert, 0)]

    def until(self, condition: Callable[[], bool], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in sorted(self.tmp_path.glob("*.log")))

    def rebuild(self, *options: str, metric: str = "quality", prefix: str = "") -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STEERSMAN_")}
        environment |= {
            "STEERSMAN_HOME": str(self.tmp_path), "STEERSMAN_TOPIC_PREFIX": prefix or self.topics.prefix, "NO_COLOR": "1",
        }  # fmt: skip
        return subprocess.run(
            [
                str(ROOT / "bin/steersman"), "rebuild", "a/one", "--brokers", self.bootstrap,
                "--policies", str(self.policies(metric)), *options,
            ],
            capture_output=True, text=True, timeout=self.rebuild_s, env=environment, check=False,
        )  # fmt: skip

    def copy(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
        """Copy state, policies and rewards to topics of another prefix, each reward changed by a function; returns the prefix."""
        others = Topics(f"{self.topics.prefix}c{next(_numbers)}")
        create_topics(self.bootstrap, others, PARTITIONS)
        pairs = [(self.topics.policy, others.policy, 0), (self.topics.shard, others.shard, 0)]
        for p in range(PARTITIONS):
            pairs += [(self.topics.state, others.state, p), (self.topics.reward, others.reward, p)]
        for source, target, partition in pairs:
            for found in PartitionLog(self.bootstrap, source, partition):
                value = found.value
                if source == self.topics.reward:
                    value = self.codec.encode(change(self.codec.decode(value)))
                self.producer.produce(target, key=found.key, value=value, partition=partition, headers=found.headers)
        assert self.producer.flush(30) == 0
        return others.prefix

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
