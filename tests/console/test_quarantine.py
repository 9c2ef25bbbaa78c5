"""`steersman quarantine`: the file as people wrote it but for one line, and a worker on Kafka that learns again without a source."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console import toml_edit
from console.brokers import Broker
from console.children import ROOT
from learners.policies_file import parse_policies
from learners.spec import PolicySpec
from steersman.errors import ConfigError
from tests.streams.learner_bench import LearnerBench
from tests.streams.test_learning_stage import reward

FILE = """
# Ours.
[[policy]]
name = "a/one"   # the first
baseline = { model = "large" }
[policy.knobs]
model = ["small", "large"]

[policy.reward] # what counts
weights = { quality = 1.0 }
quarantined = ["old"]

[[policy]]
name = "b/two"
tenant = "other"
baseline = { model = "large" }
[policy.knobs]
model = ["small", "large"]
"""


def quarantined(text: str) -> dict[str, tuple[str, ...]]:
    return {spec.key: spec.reward.quarantined for spec in parse_policies(text)}


def test_a_source_is_listed_and_lifted_and_all_else_stays_as_people_wrote_it() -> None:
    both = [("default", "a/one"), ("other", "b/two")]
    text = toml_edit.listed(FILE, both, 'o"ne', "by me: because")
    assert quarantined(text) == {"default/a/one": ("old", 'o"ne'), "other/b/two": ('o"ne',)}
    assert toml_edit.listed(text, both, 'o"ne', "again") == text
    text = toml_edit.listed(text, [("other", "b/two")], "two", "")
    for line in FILE.strip().splitlines():
        assert line in text or "quarantined" in line
    again = toml_edit.lifted(toml_edit.lifted(text, both, 'o"ne'), both, "two")
    assert quarantined(again) == {"default/a/one": ("old",), "other/b/two": ()}
    assert toml_edit.lifted(again, both, "nobody") == again


def test_notes_are_those_of_each_policy(tmp_path: Path) -> None:
    text = toml_edit.listed(FILE, [("default", "a/one")], "x", "first")
    text = toml_edit.listed(text, [("other", "b/two")], "x", "second")
    text = toml_edit.listed(text, [("other", "b/two")], "y", "third")
    path = tmp_path / "p.toml"
    path.write_text(text)
    assert toml_edit.notes(path, ("default", "a/one")) == {"old": "", "x": "first"}
    assert toml_edit.notes(path, ("other", "b/two")) == {"x": "second", "y": "third"}


def test_a_file_is_changed_whole_or_not_at_all(tmp_path: Path) -> None:
    path, link = tmp_path / "p.toml", tmp_path / "link.toml"
    path.write_text(FILE)
    path.chmod(0o640)
    link.symlink_to(path)
    toml_edit.change(link, lambda text: text.replace("old", "new"))
    assert (link.is_symlink(), path.stat().st_mode & 0o777) == (True, 0o640)
    assert '"new"' in path.read_text()
    with pytest.raises(ConfigError, match="baseline"):
        toml_edit.change(path, lambda text: text + "[[policy]]\n")

    def meanwhile(text: str) -> str:
        path.write_text(FILE)
        return text.replace("new", "newer")

    with pytest.raises(ConfigError, match="somebody else"):
        toml_edit.change(path, meanwhile)
    assert path.read_text() == FILE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.toml", "p.toml"]


class Judged(LearnerBench):
    """Three of five rewards are judged by ``liar``."""

    def policies(self, metric: str = "quality") -> Path:
        path = self.tmp_path / "policies.toml"
        return path if path.exists() else super().policies(metric).rename(path)

    def now(self) -> PolicySpec:
        [spec] = parse_policies(self.policies().read_text())
        return spec

    def send(self, start: int, end: int, metric: str = "quality", **changes: Any) -> None:
        spec = self.now()
        for n in range(start, end):
            liar, arm = n % 5 < 3, spec.arms.labels[n % 4]
            record = reward(
                spec, n, arm=arm, quality=float(arm.startswith("model=large") != liar), source_partition=n % 3,
                source="liar" if liar else f"user{n % 4}", **changes,
            )  # fmt: skip
            for _ in range(2 if n % 7 == 0 else 1):
                self.produce(record, spec.key)
        assert self.producer.flush(30) == 0

    def command(self, *args: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STEERSMAN_")}
        environment |= {
            "STEERSMAN_HOME": str(self.tmp_path),
            "STEERSMAN_TOPIC_PREFIX": self.topics.prefix,
            "NO_COLOR": "1",
        }
        return subprocess.run(
            [str(ROOT / "bin/steersman"), "quarantine", *args, "--policies", str(self.policies())],
            capture_output=True, text=True, timeout=120, env=environment, check=False,
        )  # fmt: skip


@pytest.fixture
def bench(kafka: Broker, tmp_path: Path) -> Iterator[Judged]:
    bench = Judged(kafka.bootstrap, tmp_path)
    yield bench
    bench.close()


def test_a_worker_learns_again_without_the_source_over_a_kill_and_the_log_agrees(bench: Judged) -> None:
    worker = bench.start()
    bench.send(0, 400)
    bench.until(lambda: (1, 400) in bench.ranks())

    shown = bench.command("liar", "--dry-run", "--json", "--brokers", bench.bootstrap)
    assert shown.returncode == 0, shown.stderr
    [seen] = json.loads(shown.stdout)["policies"]
    assert (seen["rewards"], seen["judgements"], seen["mean"]) == (400, 240, 0.5)
    assert all(0.0 <= p <= 1.0 for pair in seen["arms"].values() for p in pair)
    assert all(
        (arm.startswith("model=large")) == (then > now)
        for arm, (now, then) in seen["arms"].items()
        if abs(then - now) > 0.1
    )
    assert any(abs(then - now) > 0.1 for now, then in seen["arms"].values())
    assert "quarantined = [" in json.loads(shown.stdout)["diff"]
    assert bench.now().reward.quarantined == ()

    done = bench.command("liar", "--reason", "lies", "--wait", "60", "--json", "--brokers", bench.bootstrap)
    assert done.returncode == 0, done.stderr + bench.logs()
    assert json.loads(done.stdout)["policies"] == ["default/a/one"]
    assert (2, 400) in bench.ranks()
    assert "lies" in bench.command("list").stdout
    [alert] = [a for a in bench.alerts() if a["detector"] == "relearned"]
    assert "epoch 2, version 400" in alert["message"]

    bench.send(400, 450)  # decided under the old epoch
    bench.until(lambda: (2, 450) in bench.ranks())
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert bench.command("lift", "liar").returncode == 0  # while nobody is there
    worker = bench.start()
    bench.until(lambda: (3, 450) in bench.ranks())
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0, bench.logs()

    same = bench.rebuild("--json")
    assert same.returncode == 0, same.stderr + same.stdout
    assert json.loads(same.stdout)["state"]["epoch"] == 3
    bench.command("liar")
    before = bench.rebuild("--epoch", "2", "--json")
    assert before.returncode == 0, before.stderr + before.stdout
    # As far as the stream had come when the third epoch took over.
    assert 400 <= json.loads(before.stdout)["state"]["version"] <= 450
