"""A worker on Kafka whose policies file changes: agents decide otherwise without a restart, and a rebuild agrees to the bit."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.brokers import Broker
from learners.policies_file import parse_policies
from tests.streams.learner_bench import POLICY, LearnerBench

CHANGED = POLICY.replace(
    "[policy.reward]", "[policy.reward]\nweights = {{ quality = 1.0 }}\nceilings = {{ cost_micro_usd = 5.0 }}"
)
WIDER = CHANGED.replace("k = [4, 8]", "k = [4, 6, 8]")


@pytest.fixture
def bench(kafka: Broker, tmp_path: Path) -> Iterator[LearnerBench]:
    bench = LearnerBench(kafka.bootstrap, tmp_path)
    yield bench
    bench.close()


def test_ceilings_and_levels_change_without_a_restart(bench: LearnerBench) -> None:
    worker = bench.start()
    path = bench.policies()
    bench.send(0, 60)
    bench.until(lambda: (1, 60) in bench.ranks())
    path.write_text("[[policy]]\nname = 3\n")
    bench.until(lambda: [alert["detector"] for alert in bench.alerts()] == ["policies_file"])
    path.write_text(CHANGED.format(metric="quality", shards=1))
    bench.until(lambda: bench.snapshots()[-1]["revision"] == 1)
    assert bench.ranks()[-1] == (1, 60)
    bench.send(60, 160)
    bench.until(lambda: (1, 160) in bench.ranks())
    # Every decision costs 10, twice the ceiling: whatever the price, it is charged for.
    [multiplier] = bench.snapshots()[-1]["multipliers"]
    assert multiplier["component"] == "cost"
    assert multiplier["value"] > 0
    path.write_text(WIDER.format(metric="quality", shards=1))
    bench.until(lambda: (2, 0) in bench.ranks())
    assert bench.snapshots()[-1]["inherited"]
    wider = parse_policies(WIDER.format(metric="quality", shards=1)).get("default", "a/one")
    assert wider is not None
    bench.send(160, 220, policy_epoch=2)
    bench.until(lambda: (2, 60) in bench.ranks())
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    changed, last = bench.tmp_path / "changed.toml", bench.tmp_path / "wider.toml"
    changed.write_text(CHANGED.format(metric="quality", shards=1))
    last.write_text(WIDER.format(metric="quality", shards=1))
    for options in (["--policies", str(last)], ["--policies", str(changed), "--epoch", "1"]):
        done = bench.rebuild("--json", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["identical"]
    assert worker.returncode == 0
