"""A source goes into quarantine while the stage runs: the policy is learned again without it, and nothing counts twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from learners.acts import Act
from learners.guard_spec import GuardSpec
from learners.lineage import head_of, rebuild, vector_of
from learners.policies import Policies
from learners.policy_learner import PolicyLearner
from learners.quarantine import with_quarantine
from learners.source_names import hashed
from learners.spec import PolicySpec, Weights
from learners.state import Origin
from steersman.codec import Codec
from streams import relearning
from streams.control import ControlLog
from streams.held_learner import old_key
from streams.learning_stage import LearningOutput, LearningStage
from streams.relearning import Relearning
from tests.streams.test_learning_stage import SECOND, one, reward

KEY = "default/a/one"


class Log:
    """The log of rewards, which grows; chunks as small as may be."""

    def __init__(self, begin: int = 0, gate: threading.Event | None = None) -> None:
        self.rewards: list[dict[str, Any]] = []
        self.begin = begin
        self.gate = gate

    def chunks(self, stop: threading.Event) -> Iterator[list[Mapping[str, Any]]]:
        at = self.begin
        while not stop.is_set():
            while self.gate is not None and at >= 7 and not self.gate.wait(0.002) and not stop.is_set():
                pass
            yield list(self.rewards[at : at + 7])
            at = min(at + 7, len(self.rewards))
            if at == len(self.rewards):
                time.sleep(0.001)


class Live:
    """A stage on a log, and what is saved of it."""

    def __init__(self, spec: PolicySpec, log: Log, saved: dict[str, bytes] | None = None) -> None:
        self.policies = Policies.of(spec)
        self.log = log
        self.stage = LearningStage(
            self.policies, 0, 1, publish_interval_us=0, relearn=partial(Relearning, open_log=lambda: log)
        )
        self.saved = {} if saved is None else saved
        self.stage.restore(self.saved.items())
        self.now = 0
        self.outputs: list[LearningOutput] = []
        self.looked = 0
        self.due()

    def due(self) -> LearningOutput:
        self.now += SECOND
        self.stage.revise()
        self.outputs.append(self.stage.due(now_us=1, monotonic_us=self.now))
        return self.outputs[-1]

    def learn(self, n: int, **changes: Any) -> LearningOutput:
        self.now += SECOND
        start = len(self.log.rewards)
        self.log.rewards += [judged(i, **changes) for i in range(start, start + n)]
        self.stage.revise()
        batch = [(i, 0, self.log.rewards[i]) for i in range(start, start + n)]
        self.outputs.append(self.stage.process(batch, now_us=1, monotonic_us=self.now))
        return self.outputs[-1]

    def quarantine(self, *sources: str) -> None:
        self.policies.become(Policies.of(with_quarantine(self.policies_now(), sources)))

    def policies_now(self) -> PolicySpec:
        return next(iter(self.policies))

    def until_relearned(self) -> LearningOutput:
        deadline = time.monotonic() + 20
        while not (found := [out for out in self.outputs[self.looked :] if out.counters["relearned"]]):
            assert time.monotonic() < deadline
            time.sleep(0.002)
            self.due()
        self.looked = len(self.outputs)
        return found[0]

    def save(self) -> None:
        for key, value in self.stage.dump_dirty().items():
            if value is None:
                self.saved.pop(key)
            else:
                self.saved[key] = value


def judged(i: int, **changes: Any) -> dict[str, Any]:
    """Source ``liar`` judges every fifth decision, against what the others say."""
    arm = ("model=small", "model=large")[i % 2]
    good = arm == "model=large"
    liar = i % 5 == 0
    return reward(
        one(), i, arm=arm, quality=float(good != liar), source="liar" if liar else f"u{i % 4}", source_partition=i % 3, **changes
    )  # fmt: skip


def learned(spec: PolicySpec, log: list[dict[str, Any]], epoch: int = 2, since: int = 1) -> PolicyLearner:
    """What the stage must come to: a learner that never heard anybody in quarantine."""
    learner = PolicyLearner(spec, epoch)
    learner.since = since
    learner.learn_many(log)
    return learner


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("relearn-")]


def test_the_policy_is_learned_again_without_the_source_and_published_once_it_has_caught_up() -> None:
    gate = threading.Event()
    live = Live(one(), Log(gate=gate))
    live.learn(60)
    live.save()
    before = live.saved[KEY]
    live.quarantine("liar")
    out = live.due()
    assert out.snapshots == []
    out = live.learn(40)
    assert (out.counters["applied"], out.snapshots) == (40, [])  # it goes on learning, and tells nobody
    gate.set()
    out = live.until_relearned()
    assert (out.save, out.snapshots) == (True, [])
    [alert] = out.alerts
    assert (alert["detector"], alert["severity"]) == ("relearned", "INFO")
    Codec("alert").encode(alert)
    live.save()
    [snapshot] = live.due().snapshots
    assert (snapshot["epoch"], snapshot["version"], snapshot["applied_n"]) == (2, 100, 100)
    assert snapshot["learner"].startswith("linear without 1 source ")
    spec = with_quarantine(one(), ["liar"])
    assert live.saved[KEY] == learned(spec, live.log.rewards).to_state()
    assert live.saved[old_key(KEY, 1)] != before  # with what came since
    assert Origin.of(live.saved[old_key(KEY, 1)]).version == 100
    # What is decided under the old epoch still counts, once.
    assert live.learn(10).counters["applied"] == 10
    assert live.learn(10, policy_epoch=2).counters["applied"] == 10
    live.save()
    assert live.saved[KEY] == learned(spec, live.log.rewards).to_state()
    assert b"liar" not in live.saved[KEY]
    # The log gives it again, and so does the state.
    again = rebuild(spec, 2, {}, live.log.rewards, Origin.of(live.saved[KEY]).sources, live.saved[KEY])
    assert again.to_state() == live.saved[KEY]
    made = rebuild(spec, 2, {}, live.log.rewards, vector_of(snapshot), live.saved[KEY], 0)
    assert made.snapshot(1).to_record() == snapshot
    assert not head_of(Codec("policy_snapshot").decode(Codec("policy_snapshot").encode(snapshot))).from_log
    assert Live(spec, live.log, dict(live.saved)).stage.dump_dirty() == {}
    live.stage.close()


def test_after_a_crash_it_begins_anew_and_comes_to_the_same() -> None:
    gate = threading.Event()
    live = Live(one(), Log(gate=gate))
    live.learn(60)
    live.save()
    live.quarantine("liar")
    live.learn(20)
    live.save()
    live.stage.close()  # as when the partition is taken away
    gate.set()
    assert live.saved[KEY] == learned(one(), live.log.rewards, 1).to_state()
    spec = with_quarantine(one(), ["liar", "liar", hashed("liar")])
    other = Live(spec, live.log, dict(live.saved))
    other.until_relearned()
    other.learn(5)
    other.save()
    assert other.saved[KEY] == learned(spec, live.log.rewards).to_state()
    other.stage.close()


def test_lifting_it_brings_the_source_back_and_another_quarantine_replaces_one_on_its_way() -> None:
    live = Live(one(), Log())
    live.learn(50)
    live.save()
    live.quarantine("liar")
    live.until_relearned()
    live.save()
    live.quarantine()
    live.until_relearned()
    live.save()
    assert live.saved[KEY] == learned(one(), live.log.rewards, 3).to_state()
    gate = live.log.gate = threading.Event()
    live.quarantine("liar")
    live.due()
    live.quarantine("u1", "u2")
    live.due()
    gate.set()
    live.until_relearned()
    live.save()
    assert live.saved[KEY] == learned(with_quarantine(one(), ["u1", "u2"]), live.log.rewards, 4).to_state()
    gate.clear()
    live.quarantine("liar")
    live.due()
    live.quarantine("u2", "u1")  # as it is: nothing has to be learned again
    out = live.due()
    assert not out.counters["relearned"]
    live.stage.close()


def test_settings_change_at_the_same_places_again() -> None:
    def weighted(spec: PolicySpec, quality: float) -> PolicySpec:
        return replace(spec, reward=spec.reward.model_copy(update={"weights": Weights(quality=quality)}))

    priced = replace(one(), prices={"model": {"small": 1.0, "large": 2.0}})
    dearer = replace(weighted(priced, 2.0), prices={"model": {"small": 1.0, "large": 8.0}})
    live = Live(priced, Log())
    live.learn(30)
    live.policies.become(Policies.of(dearer))
    live.learn(30)
    live.save()
    live.quarantine("liar")
    live.until_relearned()
    live.learn(12)
    live.save()
    expected = PolicyLearner(with_quarantine(priced, ["liar"]), 2)
    expected.since = 1
    expected.learn_many(live.log.rewards[:30])
    expected.revise(with_quarantine(dearer, ["liar"]))
    expected.learn_many(live.log.rewards[30:])
    assert live.saved[KEY] == expected.to_state()
    live.stage.close()


def test_what_operators_want_outlives_a_quarantine() -> None:
    live = Live(one(), Log())
    live.learn(30)
    act = Act("a", "FREEZE", 1, "me", "look into the liar")
    live.stage.operate(ControlLog({KEY: ((0, act),)}, frozenset()))
    live.due()
    live.save()
    live.due()
    live.quarantine("liar")
    live.until_relearned()
    live.save()
    [snapshot] = live.due().snapshots
    assert (snapshot["epoch"], snapshot["stage"]) == (2, "FROZEN")
    live.learn(10)
    assert live.due().snapshots == []
    live.save()
    assert Live(live.policies_now(), live.log, dict(live.saved)).due().snapshots == []
    live.stage.close()


def test_what_comes_faster_than_it_is_taken_over_is_read_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relearning, "CATCH_UP", 10)
    live = Live(one(), Log())
    live.learn(50)
    live.quarantine("liar")
    for _ in range(30):
        live.learn(25)
    live.until_relearned()
    live.learn(3)
    live.save()
    assert live.saved[KEY] == learned(with_quarantine(one(), ["liar"]), live.log.rewards).to_state()
    live.stage.close()


def test_a_log_that_has_lost_its_beginning_gives_what_it_has() -> None:
    live = Live(one(), Log())
    live.learn(50)
    live.log.begin = 20
    live.quarantine("liar")
    live.until_relearned()
    live.save()
    assert Origin.of(live.saved[KEY]).version == 30
    assert live.saved[KEY] == learned(with_quarantine(one(), ["liar"]), live.log.rewards[20:]).to_state()
    live.stage.close()


def test_the_guard_hears_of_nobody_in_quarantine() -> None:
    spec = replace(one(), guard=GuardSpec(apprentice=40, shadow=10))
    live = Live(spec, Log())
    live.learn(45)
    assert [o.alerts for o in live.outputs][-1]  # into shadow
    live.save()
    live.quarantine("liar")
    out = live.until_relearned()
    assert [a["detector"] for a in out.alerts] == ["relearned"]  # what the guard did is not told again
    live.save()
    [snapshot] = live.due().snapshots
    assert (snapshot["epoch"], snapshot["stage"]) == (2, "SHADOW")
    again = rebuild(
        with_quarantine(spec, ["liar"]), 2, {}, live.log.rewards, Origin.of(live.saved[KEY]).sources, live.saved[KEY]
    )
    assert again.to_state() == live.saved[KEY]
    assert '"rewards":36' in live.saved[KEY].decode("latin-1")  # of 45, nine were the liar's
    live.stage.close()
