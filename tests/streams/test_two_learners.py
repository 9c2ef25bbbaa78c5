"""Two deployments learn the same policy on one Kafka: the lower epoch falls silent, agents never go back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.brokers import Broker
from steersman.codec import Codec
from steersman.subscriber import PolicySubscriber
from streams.policy_watch import PolicyWatch
from tests.streams.learner_bench import LearnerBench


@pytest.fixture
def bench(kafka: Broker, tmp_path: Path) -> Iterator[LearnerBench]:
    bench = LearnerBench(kafka.bootstrap, tmp_path)
    yield bench
    bench.close()


def test_the_lower_epoch_falls_silent_and_agents_never_go_back(bench: LearnerBench) -> None:
    held: list[tuple[int, int]] = []
    subscriber = PolicySubscriber(bench.bootstrap, topics=bench.topics)
    subscriber.on_change(lambda one: held.append((one.snapshot.epoch, one.snapshot.version)))
    subscriber.start()
    try:
        first = bench.start("quality", group="one")
        bench.send(0, 100)
        bench.until(lambda: (1, 100) in bench.ranks())
        second = bench.start("stars", group="two")
        bench.until(lambda: (2, 0) in bench.ranks())
        bench.until(lambda: len(bench.alerts()) == 1)
        [alert] = bench.alerts()
        assert (alert["detector"], alert["severity"]) == ("learner_superseded", "CRITICAL")
        assert json.loads(alert["evidence"])["epoch"] == 1
        before = [rank for rank in bench.ranks() if rank[0] == 1]
        # Rewards that either could learn from; the second one shows that they have come.
        for start in range(100, 400, 100):
            bench.send(start, start + 50)
            bench.send(start + 50, start + 100, "stars", policy_epoch=2)
        bench.until(lambda: (2, 150) in bench.ranks())
        assert [rank for rank in bench.ranks() if rank[0] == 1] == before
        assert len(bench.alerts()) == 1
        assert first.poll() is None
        assert second.poll() is None
        bench.until(lambda: held[-1] == (2, 150))
        assert held == sorted(held)
    finally:
        subscriber.close()


def test_the_watch_reads_to_the_end_and_then_follows(bench: LearnerBench) -> None:
    watch = PolicyWatch(bench.bootstrap, bench.topics.policy, codec=Codec("policy_snapshot"))
    try:
        for _ in range(2):
            watch.read_to_end(20)
            assert watch.heads == {}
        worker = bench.start()
        bench.send(0, 30)
        bench.until(lambda: (1, 30) in bench.ranks())
        watch.read_to_end(20)
        heads = watch.heads
        head = heads["default/a/one"]
        assert (head.rank, head.lineage) == ((1, 30), bench.spec().lineage)
        assert watch.heads is heads
        bench.producer.produce(bench.topics.policy, key=b"default/a/one", value=None)
        bench.producer.produce(bench.topics.policy, key=b"default/a/one", value=b"rubbish")
        bench.producer.produce(bench.topics.policy, key=b"default/b", value=bench.raw_policy())
        bench.send(30, 40)
        bench.until(lambda: watch.heads["default/a/one"].rank == (1, 40))
        assert heads["default/a/one"].rank == (1, 30)
        assert list(watch.heads) == ["default/a/one"]
        worker.terminate()
        assert worker.wait(20) == 0
    finally:
        watch.close()
