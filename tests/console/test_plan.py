"""What `steersman plan` says is what a worker does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from console.life.plan import Planned, foresee
from console.life.planning import replace_file
from learners.policies import Policies
from learners.policies_file import parse_policies
from learners.registry import restore_learner
from learners.state import Origin
from steersman.errors import ConfigError
from tests.streams.test_acts import Operated

FILE = """
[[policy]]
name = "a/one"
baseline = { model = "large" }
[policy.knobs]
model = ["small", "large"]
[policy.reward]
weights = { quality = 1.0 }
[policy.exploration]
floor = 0.05
"""
KEY = "default/a/one"


def policies(change: str = "") -> Policies:
    """The file, with a change written as ``old => new``."""
    old, _, new = change.partition(" => ")
    assert old in FILE
    return parse_policies(FILE.replace(old, new) if change else FILE)


@pytest.fixture(scope="module")
def saved() -> dict[str, bytes]:
    run = Operated(next(iter(policies())))
    run.learn(40)
    run.save()
    return {KEY: run.saved[KEY]}


def one(saved: dict[str, bytes], change: str = "", running: Policies | None = None) -> Planned:
    candidate = policies(change)
    [found] = foresee(running or policies(), candidate, saved)
    # The claim is checked against what the worker does with that very state.
    spec = next(iter(candidate))
    if found.policy == KEY and found.effect in ("live at once", "new epoch", "unchanged"):
        epoch = restore_learner(spec, saved[KEY]).epoch
        assert (epoch == Origin.of(saved[KEY]).epoch) == (found.effect != "new epoch")
    return found


def test_nothing_changes(saved: dict[str, bytes]) -> None:
    found = one(saved)
    assert (found.effect, found.changes, found.epoch, found.version) == ("unchanged", [], 1, 40)


CASES: list[tuple[str, str, list[str]]] = [
    ("quality = 1.0 => quality = 2.0", "live at once", ["weights.quality 1 -> 2"]),
    ("floor = 0.05 => floor = 0.1", "live at once", ["exploration.floor 0.05 -> 0.1"]),
    ('["small", "large"] => ["small", "medium", "large"]', "new epoch", ["epoch 2 begins", "model: medium is new"]),
    ("[policy.reward] => [policy.reward]\nmetric = \"stars\"", "new epoch", ["epoch 2 begins", "what a reward is: metric quality -> stars"]),
    ('name = "a/one" => name = "a/one"\nlearner = "linucb"', "new epoch", ["epoch 2 begins", "learner linear -> linucb"]),
    ("[policy.exploration] => [policy.learning]\nshards = 2\n[policy.exploration]", "refused", []),
]  # fmt: skip


@pytest.mark.parametrize(("change", "effect", "changes"), CASES)
def test_each_kind_of_change(saved: dict[str, bytes], change: str, effect: str, changes: list[str]) -> None:
    found = one(saved, change)
    assert found.effect == effect, found
    if changes:
        assert found.changes == changes


def test_what_a_new_epoch_keeps(saved: dict[str, bytes]) -> None:
    wider = one(saved, '["small", "large"] => ["small", "medium", "large"]')
    assert wider.keeps.startswith("what was learned of the 2 arms that stay; 1 new arms begin")
    narrower = one(saved, '["small", "large"] => ["large", "huge"]')
    assert narrower.keeps.endswith("; 1 arms take what was learned of them along")
    other = one(saved, '[policy.reward] => [policy.reward]\nmetric = "stars"')
    assert other.keeps.startswith("nothing")


def test_a_guard_that_comes_changes_and_begins_anew(saved: dict[str, bytes]) -> None:
    found = one(saved, '[policy.exploration] => [policy.guard]\nstart = "shadow"\n[policy.exploration]')
    assert found.effect == "live at once"
    assert any(line.startswith("guard none -> {start = shadow") for line in found.changes)


def test_policies_that_come_and_go(saved: dict[str, bytes]) -> None:
    other = parse_policies(FILE.replace("a/one", "b/two"))
    two, gone = foresee(policies(), other, saved)
    assert (two.policy, two.effect) == ("default/b/two", "new policy")
    assert (gone.policy, gone.effect) == (KEY, "goes on")
    assert "retire it" in gone.changes[0]


def test_a_pin_ends_with_its_epoch() -> None:
    run = Operated(next(iter(policies())))
    run.learn(10)
    run.ask("PIN", run.last)
    run.save()
    found = one({KEY: run.saved[KEY]}, '["small", "large"] => ["small", "medium", "large"]')
    assert any(line.startswith("its pin to 1.10 ends") for line in found.changes)


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, link, source = tmp_path / "live.toml", tmp_path / "link.toml", tmp_path / "candidate.toml"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    source.write_text("new")
    replace_file(source, link)
    assert (target.read_text(), target.stat().st_mode & 0o777, link.is_symlink()) == ("new", 0o640, True)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    source.write_text("newer")
    with pytest.raises(ConfigError, match="No space left"):
        replace_file(source, target)
    assert target.read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["candidate.toml", "link.toml", "live.toml"]
