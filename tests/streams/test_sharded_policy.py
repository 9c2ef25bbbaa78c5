"""A hot policy in four shards on two workers, one of them killed: the same policy as one learner makes of the rewards."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from console.brokers import Broker
from learners.policy_learner import PolicyLearner
from learners.shard_keys import shard_key
from learners.shards import Statistics, merge_shards
from streams.learning_stage import partition_of
from streams.partition_log import PartitionLog
from streams.shard_watch import ShardWatch
from tests.streams.learner_bench import PARTITIONS, LearnerBench

KEY = "default/a/one"
SHARDS = 4


@pytest.fixture
def bench(kafka: Broker, tmp_path: Path) -> Iterator[LearnerBench]:
    bench = LearnerBench(kafka.bootstrap, tmp_path, shards=SHARDS)
    yield bench
    bench.close()


def single(bench: LearnerBench) -> PolicyLearner:
    """One learner, taught all that is on the reward topic."""
    learner = PolicyLearner(replace(bench.spec(), shards=1))
    for partition in range(PARTITIONS):
        log = PartitionLog(bench.bootstrap, bench.topics.reward, partition)
        learner.learn_many([bench.codec.decode(record.value, record.headers) for record in log])
    return learner


def stop(worker: subprocess.Popen[bytes]) -> None:
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0


def test_two_workers_learn_one_policy_and_a_kill_changes_nothing(bench: LearnerBench) -> None:
    workers = [bench.start(), bench.start()]
    bench.until(lambda: all("restored in" in log.read_text() for log in bench.tmp_path.glob("worker?.log")))
    for start in range(0, 600, 50):
        bench.send(start, start + 50)
    bench.until(lambda: any(version > 0 for _, version in bench.ranks()))
    workers[0].send_signal(signal.SIGKILL)
    workers[0].wait()
    for start in range(600, 1200, 50):
        bench.send(start, start + 50)
    bench.until(lambda: (1, 1200) in bench.ranks())
    assert bench.ranks() == sorted(bench.ranks())
    stop(workers[1])

    wanted = single(bench)
    watch = ShardWatch(bench.bootstrap, bench.topics.shard)
    try:
        watch.read_to_end(20)
        newest = {k: watch.statistics[shard_key(KEY, k), bench.spec().lineage] for k in range(SHARDS)}
    finally:
        watch.close()
    assert sum(one.origin.version for one in newest.values()) == wanted.version == 1200
    assert all(one.origin.version == 300 for one in newest.values())
    whole = merge_shards(bench.spec(), 1, {k: one.state for k, one in newest.items()})
    assert isinstance(whole, PolicyLearner)
    assert (whole.applied_hash, whole.sources) == (wanted.applied_hash, wanted.sources)
    for ours, theirs in zip(whole.posteriors(), wanted.posteriors(), strict=True):
        np.testing.assert_allclose(ours.theta, theirs.theta, rtol=1e-9)
        dim = whole.layout.dim
        np.testing.assert_allclose(ours.covariance(dim), theirs.covariance(dim), rtol=1e-9, atol=1e-15)
    [published] = [s for s in bench.snapshots() if s["version"] == 1200][-1:]
    made = whole.snapshot(published["created_at"]).to_record()
    assert made["tensors"] == published["tensors"]
    assert (published["learner"], published["applied_n"]) == ("linear*4", 1200)

    rebuilt = bench.rebuild("--json")
    assert rebuilt.returncode == 0, rebuilt.stderr + rebuilt.stdout
    found = json.loads(rebuilt.stdout)
    assert (found["identical"], found["state"]["version"], found["snapshot"]["version"]) == (True, 1200, 1200)
    assert [found[f"shard {k}"]["version"] for k in range(SHARDS)] == [300] * SHARDS
    prefix = bench.copy(lambda reward: {**reward, "quality": 0.5} if reward["source_offset"] == 77 else reward)
    altered = bench.rebuild("--json", prefix=prefix)
    assert altered.returncode == 4, altered.stderr
    found = json.loads(altered.stdout)
    differing = [what for what, one in found.items() if isinstance(one, dict) and not one["identical"]]
    assert differing == ["state", "snapshot", f"shard {77 % SHARDS}"]


def test_four_shards_become_one_learner_and_four_again_without_losing_a_reward_of_the_epoch(
    bench: LearnerBench,
) -> None:
    total = 0
    for epoch, shards in ((1, 4), (2, 1), (3, 4)):
        bench.shards = shards
        worker = bench.start()
        bench.until(lambda epoch=epoch: (epoch, 0) in bench.ranks())  # type: ignore[misc]
        bench.send(total, total + 100, policy_epoch=epoch)
        total += 100
        bench.until(lambda epoch=epoch: (epoch, 100) in bench.ranks())  # type: ignore[misc]
        stop(worker)
        assert bench.rebuild().returncode == 0
    bench.shards = 1
    assert bench.rebuild("--epoch", "2").returncode == 0
    bench.shards = 4
    assert bench.rebuild("--epoch", "1").returncode == 0


def test_statistics_that_are_damaged_or_lower_are_passed_over(bench: LearnerBench) -> None:
    watch = ShardWatch(bench.bootstrap, bench.topics.shard)
    try:
        watch.read_to_end(20)
        assert watch.statistics == {}
        learner = PolicyLearner(bench.spec())
        first = learner.to_state()
        bench.send(0, 8)
        home = partition_of(shard_key(KEY, 1), PARTITIONS)
        log = PartitionLog(bench.bootstrap, bench.topics.reward, home)
        rewards = [bench.codec.decode(record.value, record.headers) for record in log]
        learner.learn_many([reward for reward in rewards if reward["source_partition"] == 1])
        second = learner.to_state()
        item = shard_key(KEY, 1)
        for value in (first, second, first, second[:-1] + bytes([second[-1] ^ 1]), None, b"rubbish"):
            bench.producer.produce(bench.topics.shard, key=item.encode(), value=value)
        assert bench.producer.flush(20) == 0
        watch.read_to_end(20)
        assert watch.statistics == {(item, bench.spec().lineage): Statistics.of(second)}
    finally:
        watch.close()
