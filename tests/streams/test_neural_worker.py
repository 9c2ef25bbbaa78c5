"""`learner = "neural"` in the real worker on Kafka, trained by the real background process, over a kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from console.brokers import Broker
from learners.spec import PolicySpec
from steersman.scoring import Scorer
from steersman.snapshot import PolicySnapshot
from tests.learners.neural.curve import POLICY, reward, spec
from tests.streams.learner_bench import ROOT, LearnerBench


class NeuralBench(LearnerBench):
    rebuild_s = 600.0  # it trains twice, too

    def policies(self, metric: str = "quality") -> Path:
        path = self.tmp_path / "policies.toml"
        path.write_text(POLICY)
        return path

    def spec(self, metric: str = "quality") -> PolicySpec:
        return spec()

    def send(self, start: int, end: int, metric: str = "quality", **changes: Any) -> None:
        for n in range(start, end):
            for _ in range(2 if n % 7 == 0 else 1):
                self.produce(reward(n, **changes), "default/a/one")
        assert self.producer.flush(30) == 0


@pytest.fixture
def bench(kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NeuralBench]:
    monkeypatch.setenv("STEERSMAN_TRAINING_BUDGET_S", "600")  # on a machine that has other things to do
    bench = NeuralBench(kafka.bootstrap, tmp_path)
    yield bench
    bench.close()


def test_it_learns_a_curve_over_a_kill_and_the_log_gives_it_again(bench: NeuralBench) -> None:
    worker = bench.start()
    bench.send(0, 300)
    bench.until(lambda: any(version == 300 for _, version in bench.ranks()))  # its first training is under way
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    bench.send(300, 500)
    worker = bench.start()
    bench.until(lambda: (1, 500) in bench.ranks(), timeout_s=300)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0, bench.logs()

    published = bench.snapshots()
    reports = {s["version"]: json.loads(s["learner_report"]) for s in published}
    assert reports[300]["model"] == "linear"
    assert reports[500]["model"] == "neural", reports[500]
    assert reports[500]["encoder"] == {"in_use_since": 448, "trained_at": 384, "trained_on": 384}
    snapshot = PolicySnapshot.from_record(next(s for s in published if s["version"] == 500))
    scorer, right = Scorer(snapshot), 0
    for a, b in np.random.default_rng(5).uniform(-1.7, 1.7, (200, 2)):
        right += (scorer.score(spec().features.encode({"a": a, "b": b})).greedy < 2) == (a * b > 0)
    assert right > 170

    same = bench.rebuild("--json")
    assert same.returncode == 0, same.stderr + same.stdout
    assert json.loads(same.stdout)["identical"]


def test_without_torch_the_worker_does_not_start_and_says_what_to_install(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "policies.toml").write_text(POLICY)
    # As if it had not been installed.
    code = (
        "import sys, importlib.util as util; found = util.find_spec\n"
        "util.find_spec = lambda name, *a: None if name == 'torch' else found(name, *a)\n"
        "from streams.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [
            sys.executable, "-c", code, "worker", "--stages", "learn", "--brokers", broker.bootstrap,
            "--policies", str(tmp_path / "policies.toml"), "--topic-prefix", f"none{os.getpid()}",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    said = json.loads(done.stderr.splitlines()[-1])["event"]
    assert 'policy default/a/one asks for learner = "neural", which needs torch' in said
    assert "pip install 'steersman[neural]'" in said
