"""A policy under a guard on the running platform: it goes live, turns bad, is taken back, and the log gives all of it again."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from benchmarks.guard_fleet import live
from console.policy import held, show_events
from console.rebuild import rebuild_policy
from console.stack import Stack
from console.target import Target
from learners.policies_file import load_policies
from steersman.errors import SteersmanError

POLICY = """
[[policy]]
name = "guarded/one"
baseline = { model = "plain" }
[policy.knobs]
model = ["plain", "good", "poor"]
[policy.reward]
window_s = 60.0
settle_ms = 20
[policy.learning]
drift = false  # the learner would see the turn by itself within some 50 decisions, and leave the guard nothing to take back
[policy.guard]
apprentice = 60
shadow = 20
shares = [0.4]
control = 0.3
cooldown = 5000
"""


def test_from_apprentice_to_live_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEERSMAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STEERSMAN_TOPIC_PREFIX", "guard")
    monkeypatch.setenv("STEERSMAN_LEARNER_CHECKPOINT_INTERVAL_S", "1")
    policies = tmp_path / "policies.toml"
    policies.write_text(POLICY)
    with Stack("guard", policies) as stack:
        stack.start(lambda step: None)
        [one] = live(
            stack.brokers, stack.topics, ["guarded/one"], rate=250.0, seed=7, check=stack.check, timeout_s=60.0, trusted=200
        )  # fmt: skip
        assert one.live_after is not None, one
        assert one.back_after is not None, one
        assert one.modes == ["SHADOW", "CANARY", "LIVE", "HOLDOUT"] or set(one.modes[2:]) == {"LIVE", "HOLDOUT"}
        target = Target(stack.brokers, stack.clickhouse, stack.topics.prefix, "test")
        published = held(target, "default")["guarded/one"].snapshot
        assert (published.stage, published.canary_share) == ("SHADOW", 1.0)

        def events() -> list[dict[str, object]]:
            capsys.readouterr()
            with contextlib.suppress(json.JSONDecodeError):
                show_events(target, "default", "guarded/one", 10, as_json=True)
            return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

        assert stack.wait(lambda: len(events()) == 4, 30.0)
        told = [(e["severity"], json.loads(str(e["evidence"]))["to"]) for e in reversed(events())]
        assert told == [("INFO", "shadow"), ("INFO", "canary"), ("INFO", "live"), ("CRITICAL", "shadow")]
        [spec] = load_policies(policies)

        def rebuilt() -> bool:
            with contextlib.suppress(SteersmanError):  # nothing is saved before the first checkpoint
                return rebuild_policy(target, spec, policies).identical
            return False

        assert stack.wait(rebuilt, 15.0)
