"""`steersman rebuild` on Kafka, after the real worker was killed: the log gives the policy again, to the bit, or not."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from console.brokers import Broker
from streams.held_learner import old_key
from streams.state import read_state
from tests.streams.learner_bench import LearnerBench


@pytest.fixture
def bench(kafka: Broker, tmp_path: Path) -> Iterator[LearnerBench]:
    bench = LearnerBench(kafka.bootstrap, tmp_path)
    yield bench
    bench.close()


def altered(reward: dict[str, Any]) -> dict[str, Any]:
    return {**reward, "quality": 0.5} if reward["source_offset"] == 77 else reward


def test_a_policy_is_rebuilt_to_the_bit_after_a_kill_and_a_change_is_found(bench: LearnerBench) -> None:
    worker = bench.start()
    bench.send(0, 250)
    bench.until(lambda: any(version > 0 for _, version in bench.ranks()))
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    bench.send(250, 600)
    worker = bench.start()
    bench.until(lambda: (1, 600) in bench.ranks())
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0

    same = bench.rebuild("--json")
    assert same.returncode == 0, same.stderr + same.stdout
    found = json.loads(same.stdout)
    assert found["identical"]
    assert found["rewards_read"] == 600 + 86
    for what in ("state", "snapshot"):
        assert (found[what]["epoch"], found[what]["version"]) == (1, 600)
        assert found[what]["found"] == found[what]["rebuilt"]
    text = bench.rebuild()
    assert text.returncode == 0
    for what in ("state", "snapshot"):
        assert text.stdout.count(found[what]["found"]) == 2

    prefix = bench.copy(lambda reward: reward)
    assert bench.rebuild(prefix=prefix).returncode == 0
    prefix = bench.copy(altered)
    other = bench.rebuild("--json", prefix=prefix)
    assert other.returncode == 4, other.stderr
    found = json.loads(other.stdout)
    assert found["state"]["differs"] == ["sums"]
    assert "weights.quality" in found["snapshot"]["differs"]
    assert "objective" not in found["snapshot"]["differs"]

    admin = AdminClient({"bootstrap.servers": bench.bootstrap, "log_level": 0})
    [emptied] = admin.delete_records([TopicPartition(bench.topics.reward, bench.partition, 100)]).values()
    emptied.result(20)
    short = bench.rebuild()
    assert short.returncode == 1
    assert "begins at offset 100" in short.stderr
    assert "cannot be rebuilt" in short.stderr


def test_a_changed_reward_spec_begins_epoch_2_and_both_epochs_can_be_rebuilt(bench: LearnerBench) -> None:
    worker = bench.start()
    bench.send(0, 200)
    bench.until(lambda: (1, 200) in bench.ranks())
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    old = read_state(bench.bootstrap, bench.topics.state, "learn", bench.partition).items["default/a/one"]
    bench.start("stars")
    bench.until(lambda: (2, 0) in bench.ranks())
    bench.send(200, 260)  # rewards of the old spec, late
    bench.send(260, 360, "stars", policy_epoch=2)
    bench.until(lambda: (2, 100) in bench.ranks())
    bench.workers[-1].send_signal(signal.SIGTERM)
    assert bench.workers[-1].wait(20) == 0
    items = read_state(bench.bootstrap, bench.topics.state, "learn", bench.partition).items
    assert items[old_key("default/a/one", 1)] == old

    now = json.loads(bench.rebuild("--json", metric="stars").stdout)
    assert now["identical"]
    assert (now["state"]["epoch"], now["state"]["version"]) == (2, 100)
    before = json.loads(bench.rebuild("--epoch", "1", "--json").stdout)
    assert before["identical"]
    assert (before["state"]["version"], before["snapshot"]["version"]) == (200, 200)
    wrong = bench.rebuild()
    assert wrong.returncode == 2
    assert "--policies" in wrong.stderr
    assert bench.rebuild("--epoch", "7", metric="stars").returncode == 2


def test_what_was_never_learned_is_said(bench: LearnerBench) -> None:
    nothing = bench.rebuild()
    assert nothing.returncode == 1
    assert "no state of default/a/one is saved" in nothing.stderr
    nobody = bench.rebuild("--tenant", "else")
    assert nobody.returncode == 2
    assert "no policy 'a/one' of tenant 'else'" in nobody.stderr
