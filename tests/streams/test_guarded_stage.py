"""The learning stage with a guard: changes of stage are published at once and told as alerts, a frozen policy stays."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from learners.guard_spec import GuardSpec
from learners.guarded import GuardedLearner
from learners.lineage import head_of
from learners.policies import Policies
from learners.spec import PolicySpec
from steersman.codec import Codec
from streams.learning_stage import LearningStage
from tests.learners.test_guard import FAST, GUARDED, LOG
from tests.learners.test_policy_learner import SPEC

SECOND = 1_000_000


def stage_of(spec: PolicySpec = GUARDED, state: dict[str, bytes | None] | None = None) -> LearningStage:
    stage = LearningStage(Policies.of(spec), 0, 1, publish_interval_us=10 * SECOND, publish_interval_max_us=10 * SECOND)
    if state is not None:
        stage.restore((key, value) for key, value in state.items() if value is not None)
    return stage


def feed(stage: LearningStage, start: int, end: int, monotonic_us: int = 0) -> tuple[list[Any], list[Any]]:
    """Give it rewards one by one, a millisecond apart; returns snapshots and alerts."""
    snapshots, alerts = [], []
    for i in range(start, end):
        out = stage.process([(i, 0, LOG[i])], now_us=i, monotonic_us=monotonic_us + 1_000 * i)
        snapshots += out.snapshots
        alerts += out.alerts
    return snapshots, alerts


def test_a_change_of_stage_is_published_at_once_and_told_with_its_evidence() -> None:
    stage = stage_of()
    stage.due(now_us=0, monotonic_us=0)
    snapshots, alerts = feed(stage, 0, len(LOG))
    steps = [(s["stage"], s["canary_share"], s["version"]) for s in snapshots]
    assert [step[:2] for step in steps] == [("SHADOW", 1.0), ("CANARY", 0.1), ("CANARY", 0.5), ("LIVE", 0.9)]
    codec = Codec("alert")
    for alert, step in zip(alerts, steps, strict=True):
        assert codec.decode(codec.encode(alert))["detector"] == "guard"
        evidence = json.loads(alert["evidence"])
        assert (evidence["version"], alert["severity"], alert["policy"]) == (step[2], "INFO", GUARDED.name)
    live = alerts[-1]
    assert live["value"] > live["threshold"] == 0.0
    assert live["message"].startswith(
        "default/research/retrieval goes from canary to live: it earns more than the baseline"
    )
    assert json.loads(live["evidence"])["policy_utility"] > 0.8


def test_what_is_done_again_after_a_restart_is_told_in_the_same_words() -> None:
    stage = stage_of()
    feed(stage, 0, 15)
    saved = stage.dump_dirty()
    _, alerts = feed(stage, 15, 60)
    assert [json.loads(a["evidence"])["to"] for a in alerts[:2]] == ["shadow", "canary"]
    again = feed(stage_of(state=saved), 15, 60, monotonic_us=77 * SECOND)
    assert again[1] == alerts


def test_a_frozen_policy_is_published_once_more_and_stays() -> None:
    stage = stage_of()
    feed(stage, 0, 100)
    saved, live = stage.dump_dirty(), stage.due(now_us=5, monotonic_us=99 * SECOND).snapshots[-1]
    frozen = replace(GUARDED, guard=GUARDED.guard.model_copy(update={"freeze": True}) if GUARDED.guard else GuardSpec())
    one = stage_of(frozen, saved)
    one.published({GUARDED.key: head_of(live)})
    waiting = one.due(now_us=8, monotonic_us=0)
    assert (waiting.snapshots, waiting.save) == ([], True), "the change of settings is saved first"
    one.dump_dirty()
    [snapshot] = one.due(now_us=9, monotonic_us=0).snapshots
    assert (snapshot["stage"], snapshot["version"], snapshot["tensors"]) == ("FROZEN", 100, live["tensors"])
    assert feed(one, 100, 200, monotonic_us=100 * SECOND)[0] == []
    learned = one.dump_dirty()
    two = stage_of(frozen, learned)
    two.published({GUARDED.key: head_of(snapshot)})
    assert two.due(now_us=9, monotonic_us=0).snapshots == []
    assert feed(two, 200, 220, monotonic_us=100 * SECOND)[0] == []
    thawed = stage_of(GUARDED, two.dump_dirty())
    thawed.published({GUARDED.key: head_of(snapshot)})
    thawed.dump_dirty()
    [snapshot] = thawed.due(now_us=9, monotonic_us=0).snapshots
    assert (snapshot["stage"] != "FROZEN", snapshot["version"]) == (True, 220)
    feed(stage, 100, 220)
    went_on, straight = thawed._held[GUARDED.key].learner, stage._held[GUARDED.key].learner
    assert isinstance(went_on, GuardedLearner)
    assert isinstance(straight, GuardedLearner)
    assert went_on.guard is not None
    assert straight.guard is not None
    assert went_on.guard.to_json() == straight.guard.to_json(), "learning went on"


def test_the_guard_changes_while_everything_runs() -> None:
    policies = Policies.of(SPEC)
    stage = LearningStage(policies, 0, 1, publish_interval_us=10 * SECOND, publish_interval_max_us=10 * SECOND)
    stage.due(now_us=0, monotonic_us=0)
    feed(stage, 0, 50)
    stage.dump_dirty()

    def become(spec: PolicySpec) -> dict[str, Any]:
        assert policies.become(Policies.of(spec)) == []
        assert stage.revise()
        waiting = stage.due(now_us=1, monotonic_us=1_000_000)
        assert (waiting.snapshots, waiting.save) == ([], True)
        stage.dump_dirty()
        [snapshot] = stage.due(now_us=2, monotonic_us=1_000_000).snapshots
        stage.published({SPEC.key: head_of(snapshot)})
        return snapshot

    guarded = become(GUARDED)
    assert (guarded["stage"], guarded["version"], guarded["revision"]) == ("SHADOW", 50, 1)
    snapshots, alerts = feed(stage, 50, 100)
    assert [s["stage"] for s in snapshots] == ["SHADOW", "CANARY"]
    assert [json.loads(a["evidence"])["to"] for a in alerts] == ["shadow", "canary"]
    stage.dump_dirty()
    frozen = become(replace(GUARDED, guard=FAST.model_copy(update={"freeze": True})))
    assert (frozen["stage"], frozen["canary_share"], frozen["version"]) == ("FROZEN", 0.1, 100)
    assert feed(stage, 100, 150, monotonic_us=100 * SECOND)[0] == []
    stage.dump_dirty()
    thawed = become(GUARDED)
    assert (thawed["stage"], thawed["version"]) == ("CANARY", 150)
    free = become(SPEC)
    assert (free["stage"], free["canary_share"], free["version"], free["revision"]) == ("LIVE", 1.0, 150, 4)


def test_the_topic_tells_that_a_policy_was_frozen_at_the_same_version() -> None:
    from learners.lineage import Head, newest

    live, frozen = Head(1, 5, "a", {}, stage="LIVE"), Head(1, 5, "a", {}, stage="FROZEN")
    assert newest(live, frozen) == frozen
    assert newest(frozen, Head(1, 4, "a", {}, stage="LIVE")) == frozen
