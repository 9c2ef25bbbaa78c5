"""A brake in a worker on Apache Kafka: decisions that are hit again and again, an act on the topic, agents at their baseline."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.brokers import Broker
from tests.streams.learner_bench import LearnerBench
from tests.streams.test_acts_worker import bench_acts

DETECTORS = '\n[detectors]\nbrakes = ["tool_loop"]\n[detectors.brake]\nhits = 4\nof = 20\n'


class BrakedBench(LearnerBench):
    """A bench whose policies file has brakes."""

    def policies(self, metric: str = "quality") -> Path:
        path = super().policies(metric)
        path.write_text(path.read_text() + DETECTORS)
        return path


@pytest.fixture
def bench(kafka: Broker, tmp_path: Path) -> Iterator[BrakedBench]:
    bench = BrakedBench(kafka.bootstrap, tmp_path)
    yield bench
    bench.close()


def test_a_worker_takes_a_policy_back_and_a_killed_one_leaves_it_there(bench: BrakedBench) -> None:
    worker = bench.start()
    bench.send(0, 40)
    bench.until(lambda: (1, 40) in bench.ranks())
    assert bench.snapshots()[-1]["stage"] == "LIVE"
    bench.send(40, 46, hits="retry_storm tool_loop")
    bench.until(lambda: bench.snapshots()[-1]["stage"] == "SHADOW")
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    bench.start()
    bench.send(46, 60, hits="tool_loop")
    bench.until(lambda: (1, 60) in bench.ranks())
    assert (bench.snapshots()[-1]["stage"], bench.snapshots()[-1]["acts"]) == ("SHADOW", 1)
    bench.until(lambda: {act["outcome"] for act in bench_acts(bench)} == {"ASKED", "APPLIED"})
    acts = bench_acts(bench)
    assert {(act["act"], act["who"]) for act in acts} == {("ROLLBACK", "detector brake")}
    assert len({act["act_id"] for act in acts}) == 1
    assert "of a/one were hit: tool_loop 4" in acts[0]["why"]
    assert {alert["detector"] for alert in bench.alerts()} >= {"brake"}
    bench.until(lambda: bench.rebuild().returncode == 0)
