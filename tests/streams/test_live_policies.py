"""The policies file changes while a worker runs: what is taken over, when it is published, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learners.lineage import head_of, rebuild, vector_of
from learners.policies import Policies
from learners.policies_file import parse_policies
from learners.spec import Learning, PolicySpec, Weights
from learners.state import Origin
from steersman.arms import ArmSpace
from steersman.codec import Codec
from streams.held_learner import old_key
from streams.learning_stage import LearningOutput, LearningStage
from streams.policy_file import PolicyFile
from tests.streams.test_learning_stage import SECOND, one, reward

KEY = "default/a/one"
FILE = """
[[policy]]
name = "a/one"
baseline = {{ model = "large" }}
[policy.knobs]
model = {levels}
[policy.reward]
weights = {{ quality = {weight} }}
[policy.learning]
shards = {shards}
"""


def text(levels: str = '["small", "large"]', weight: float = 1.0, shards: int = 1) -> str:
    return FILE.format(levels=levels, weight=weight, shards=shards)


def weighted(spec: PolicySpec, quality: float) -> PolicySpec:
    return replace(spec, reward=spec.reward.model_copy(update={"weights": Weights(quality=quality)}))


class Live:
    """A stage whose policies change under it, and what is saved of it."""

    def __init__(self, spec: PolicySpec, saved: dict[str, bytes] | None = None) -> None:
        self.policies = Policies.of(spec)
        self.stage = LearningStage(self.policies, 0, 1, publish_interval_us=0)
        self.saved = {} if saved is None else saved
        self.stage.restore(self.saved.items())
        self.now = 0
        self.log: list[dict[str, Any]] = []
        self.due()

    def due(self) -> LearningOutput:
        self.now += SECOND
        self.stage.revise()
        return self.stage.due(now_us=1, monotonic_us=self.now)

    def learn(self, n: int, **changes: Any) -> LearningOutput:
        self.now += SECOND
        start = len(self.log)
        arms = next(iter(self.policies)).arms.labels
        self.log += [
            reward(one(), i, quality=i * 37 % 101 / 100, arm=arms[i % len(arms)], **changes)
            for i in range(start, start + n)
        ]
        batch = [(i, 0, self.log[i]) for i in range(start, start + n)]
        return self.stage.process(batch, now_us=1, monotonic_us=self.now)

    def change(self, spec: PolicySpec) -> list[str]:
        return self.policies.become(Policies.of(spec))

    def save(self) -> None:
        for key, value in self.stage.dump_dirty().items():
            if value is None:
                self.saved.pop(key)
            else:
                self.saved[key] = value


def test_other_weights_are_published_under_the_same_version_once_they_are_on_record() -> None:
    live = Live(one())
    live.learn(20)
    live.save()
    assert live.change(weighted(one(), 3.0)) == []
    out = live.due()
    assert (out.snapshots, out.save) == ([], True)
    live.learn(5)
    live.save()
    [snapshot] = live.due().snapshots
    assert (snapshot["epoch"], snapshot["version"], snapshot["revision"]) == (1, 25, 1)
    assert snapshot["objective"][0]["weight"] == 3.0
    assert not live.due().save
    again = rebuild(one(), 1, {}, live.log, vector_of(snapshot), live.saved[KEY], snapshot["revision"])
    assert again.to_state() == live.saved[KEY]
    assert again.snapshot(1).to_record() == snapshot
    other = Live(weighted(one(), 3.0), dict(live.saved))
    assert other.stage.dump_dirty() == {}


def test_a_crash_before_the_change_was_saved_changes_it_again_later() -> None:
    live = Live(one())
    live.learn(20)
    live.save()
    live.change(weighted(one(), 3.0))
    live.due()
    live.learn(5)
    crashed = Live(weighted(one(), 3.0), dict(live.saved))
    assert crashed.stage.due(now_us=1, monotonic_us=99 * SECOND).snapshots == []
    crashed.save()
    [snapshot] = crashed.due().snapshots
    assert (snapshot["version"], snapshot["revision"]) == (20, 1)


def test_a_new_level_begins_the_next_epoch_with_what_was_learned() -> None:
    live = Live(one())
    live.learn(40)
    live.save()
    before = live.saved[KEY]
    live.change(replace(one(), arms=ArmSpace({"model": ["small", "medium", "large"]})))
    assert live.due().snapshots == []
    live.save()
    [snapshot] = live.due().snapshots
    assert (snapshot["epoch"], snapshot["version"]) == (2, 0)
    assert snapshot["inherited"]
    assert live.saved[old_key(KEY, 1)] == before
    assert Origin.of(live.saved[KEY]).began == {0: (39, 0)}
    weights = next(t for t in snapshot["tensors"] if t["name"] == "weights.quality")
    assert any(weights["data"])
    assert live.learn(3).counters["skipped_other_epoch"] == 3
    assert live.learn(3, policy_epoch=2).counters["applied"] == 3


def test_a_lost_state_that_the_log_cannot_make_again_begins_an_epoch() -> None:
    live = Live(one())
    live.learn(20)
    live.change(weighted(one(), 3.0))
    live.due()
    live.save()
    [snapshot] = live.due().snapshots
    head = head_of(Codec("policy_snapshot").decode(Codec("policy_snapshot").encode(snapshot)))
    assert not head.from_log
    stage = LearningStage(Policies.of(weighted(one(), 3.0)), 0, 1, publish_interval_us=0)
    stage.published({KEY: head})
    [fresh] = stage.due(now_us=1, monotonic_us=0).snapshots
    assert (fresh["epoch"], fresh["version"]) == (2, 0)


def test_an_added_policy_is_learned_and_one_that_left_the_file_goes_on() -> None:
    live = Live(one())
    added = replace(one(), name="c/three")
    [refused] = live.policies.become(Policies.of(added))
    assert "default/a/one" in refused
    assert {s["policy"] for s in live.due().snapshots} == {"c/three"}
    assert live.learn(3).counters["applied"] == 3


def test_what_shards_cannot_change_while_they_run_is_refused() -> None:
    policies = parse_policies(text(shards=2))
    [refused] = policies.become(parse_policies(text(shards=3)))
    assert "shards" in refused
    assert next(iter(policies)).shards == 2
    assert policies.generation == 0
    assert policies.become(parse_policies(text(shards=2, weight=2.0))) == []
    assert next(iter(policies)).reward.weights.quality == 2.0


def test_a_drift_raises_one_alert_with_a_stable_id() -> None:
    alerts = []
    for _ in range(2):
        watched = replace(one(), learning=Learning(drift=True))
        stage = LearningStage(Policies.of(watched), 0, 1, publish_interval_us=0)
        log = [(i, 0, reward(one(), i, quality=(i * 37 % 101) / 500 + (i >= 300))) for i in range(400)]
        alerts.append(stage.process(log, now_us=1, monotonic_us=0).alerts)
    assert alerts[0] == alerts[1]
    [alert] = alerts[0]
    assert (alert["detector"], alert["severity"], alert["policy"]) == ("drift", "INFO", "a/one")
    assert "quality of default/a/one with model = small" in alert["message"]
    Codec("alert").encode(alert)


def follow(tmp_path: Path) -> tuple[Path, Policies, PolicyFile]:
    path = tmp_path / "policies.toml"
    path.write_text(text())
    policies = parse_policies(text())
    return path, policies, PolicyFile(path, policies, "default", lambda: 1_700_000_000_000_000)


def test_a_changed_file_is_taken_over_whole_and_a_bad_one_not_at_all(tmp_path: Path) -> None:
    path, policies, file = follow(tmp_path)
    assert file.look() is None
    assert policies.generation == 0
    path.write_text(text(weight=2.5))
    assert file.look() is None
    assert policies.generation == 1
    path.write_text(text(weight=7.0) + "[[policy]]\nname = 1\n")
    assert file.look() is None  # perhaps it is still being written
    alert = file.look()
    assert alert is not None
    assert (alert["detector"], alert["severity"]) == ("policies_file", "CRITICAL")
    assert f"{path}:" in alert["message"]
    Codec("alert").encode(alert)
    assert [file.look(), policies.generation, next(iter(policies)).reward.weights.quality] == [None, 1, 2.5]
    path.write_text(text(weight=7.0))
    assert file.look() is None
    assert next(iter(policies)).reward.weights.quality == 7.0


def test_a_file_that_is_gone_or_half_written_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, policies, file = follow(tmp_path)
    path.unlink()
    assert file.look() is None
    path.write_text(text(weight=4.0)[:60])
    assert file.look() is None
    path.write_text(text(weight=4.0))
    assert file.look() is None
    assert next(iter(policies)).reward.weights.quality == 4.0
    assert "cannot be read" in caplog.text
    assert "is not used" not in caplog.text
