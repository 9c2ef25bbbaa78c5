"""Epochs of a policy in the learning stage: when one begins, which learner owns it, what becomes of the old one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from learners.lineage import Head, head_of, newest
from learners.policies import Policies
from learners.policy_learner import PolicyLearner
from learners.spec import PolicySpec, RewardSpec
from learners.state import Origin
from steersman.codec import Codec
from streams.held_learner import KEPT_EPOCHS, old_key, split_key
from streams.learning_stage import LearningOutput, LearningStage
from tests.streams.test_learning_stage import SECOND, one, reward

KEY = "default/a/one"


def spec_of(metric: str = "quality") -> PolicySpec:
    base = one()
    return PolicySpec("default", "a/one", base.arms, base.baseline, base.features, RewardSpec(metric=metric))


class Worker:
    """A stage, its log and its saved state, without Kafka: one partition, one policy."""

    def __init__(self, spec: PolicySpec, saved: dict[str, bytes] | None = None, head: Head | None = None) -> None:
        self.spec = spec
        self.stage = LearningStage(Policies.of(spec), 0, 1, publish_interval_us=0)
        self.saved = {} if saved is None else saved
        self.now = SECOND
        self.alerts: list[dict[str, Any]] = []
        self.published: list[tuple[int, int]] = []
        self.last: dict[str, Any] = {}
        self.counters: dict[str, int] = {}
        self.stage.restore(self.saved.items())
        if head is not None:
            self.stage.published({KEY: head})
        self.take(self.stage.due(now_us=1, monotonic_us=self.now))

    def take(self, output: LearningOutput) -> LearningOutput:
        self.alerts += output.alerts
        for snapshot in output.snapshots:
            self.last = snapshot
            self.published.append((snapshot["epoch"], snapshot["version"]))
        for name, count in output.counters.items():
            self.counters[name] = self.counters.get(name, 0) + count
        self.now += SECOND
        return output

    def learn(self, start: int, end: int, **changes: Any) -> None:
        changes = {"reward_spec": self.spec.reward_hash, **changes}
        batch = [(n, 0, reward(self.spec, n, quality=n / 100, **changes)) for n in range(start, end)]
        self.take(self.stage.process(batch, now_us=1, monotonic_us=self.now))

    def see(self, head: Head) -> None:
        self.stage.published({KEY: head})
        self.take(self.stage.due(now_us=1, monotonic_us=self.now))

    def save(self) -> None:
        for key, value in self.stage.dump_dirty().items():
            if value is None:
                self.saved.pop(key)
            else:
                self.saved[key] = value

    @property
    def head(self) -> Head:
        return head_of(self.last)

    @property
    def origin(self) -> Origin:
        return Origin.of(self.saved[KEY])


def test_the_published_record_tells_the_lineage_it_was_learned_under() -> None:
    worker = Worker(spec_of())
    worker.learn(0, 3)
    codec = Codec("policy_snapshot")
    head = head_of(codec.decode(codec.encode(worker.last)))
    assert head == Head(1, 3, spec_of().lineage, {0: (2, 0)}, stage="LIVE", created_at=worker.last["created_at"])
    assert head_of({**worker.last, "feature_spec": "{?"}).lineage == ""


def test_an_epoch_belongs_to_whoever_published_in_it_first() -> None:
    ours, theirs = Head(2, 0, "a", {}), Head(2, 9, "b", {0: (1, 0)})
    assert newest(None, ours) == ours
    assert newest(ours, theirs) == Head(2, 9, "a", {0: (1, 0)})
    assert newest(newest(ours, theirs), Head(2, 3, "a", {})) == Head(2, 9, "a", {0: (1, 0)})
    assert newest(theirs, Head(3, 0, "c", {})) == Head(3, 0, "c", {})


def test_a_changed_reward_spec_begins_the_next_epoch_and_keeps_the_old_state() -> None:
    first = Worker(spec_of())
    first.learn(0, 5)
    first.save()
    old = first.saved[KEY]
    second = Worker(spec_of("stars"), first.saved, first.head)
    assert second.published == [(2, 0)]
    second.save()
    assert second.saved[old_key(KEY, 1)] == old
    assert (second.origin.epoch, second.origin.version, second.origin.began) == (2, 0, {0: (4, 0)})
    second.learn(3, 8, policy_epoch=2)
    second.learn(8, 9)  # decided in the old epoch
    second.save()
    assert second.counters["duplicates"] == 2
    assert second.counters["skipped_other_epoch"] == 1
    assert (second.origin.version, second.origin.began, second.origin.sources) == (3, {0: (4, 0)}, {0: (8, 0)})
    third = Worker(spec_of("stars"), second.saved, second.head)
    assert third.published == [(2, 3)]
    assert third.saved[old_key(KEY, 1)] == old
    third.save()
    assert third.saved[old_key(KEY, 1)] == old


def test_the_last_three_old_epochs_are_kept() -> None:
    saved: dict[str, bytes] = {}
    worker = Worker(spec_of("m0"), saved)
    for n in range(6):
        worker = Worker(spec_of(f"m{n}"), saved, worker.head)
        worker.learn(n, n + 1, policy_epoch=n + 1)
        worker.save()
        assert worker.origin.epoch == n + 1
    assert KEPT_EPOCHS == 3
    assert sorted(saved) == [KEY, *(old_key(KEY, epoch) for epoch in (3, 4, 5)), "ledger"]
    for epoch in (3, 4, 5):
        assert (Origin.of(saved[old_key(KEY, epoch)]).epoch, Origin.of(saved[old_key(KEY, epoch)]).version) == (
            epoch,
            1,
        )


def test_names_of_old_states_cannot_be_those_of_policies() -> None:
    assert split_key(old_key("default/a@1", 12)) == ("default/a@1", 12)
    assert split_key("default/a@1") == ("default/a@1", None)


def test_a_state_below_the_published_epoch_is_silenced_once_and_for_all() -> None:
    first = Worker(spec_of())
    first.learn(0, 5)
    first.save()
    before = {key: state for key, state in first.saved.items() if key != "ledger"}
    late = Worker(spec_of(), first.saved, Head(3, 2, spec_of().lineage, {}))
    late.learn(5, 9)
    late.see(Head(4, 0, "else", {}))
    late.save()
    assert late.published == []
    assert {key: state for key, state in late.saved.items() if key != "ledger"} == before
    assert late.counters == {"superseded": 1, "skipped_superseded": 4}
    [alert] = late.alerts
    assert (alert["detector"], alert["severity"], alert["policy"]) == ("learner_superseded", "CRITICAL", "a/one")
    assert json.loads(alert["evidence"])["published_epoch"] == 3
    assert "reset --stage learn --partition 0" in alert["message"]
    Codec("alert").encode(alert)


def test_a_running_learner_falls_silent_when_a_higher_epoch_appears_and_the_others_go_on() -> None:
    two = PolicySpec("default", "b/two", one().arms, one().baseline)
    stage = LearningStage(Policies.of(one(), two), 0, 1, publish_interval_us=0)
    stage.published({})
    stage.process([(0, 0, reward(one(), 0)), (1, 0, reward(two, 1))], now_us=1, monotonic_us=0)
    stage.published({KEY: Head(1, 1, one().lineage, {}), "default/b/two": Head(1, 1, two.lineage, {})})
    assert stage.due(now_us=1, monotonic_us=SECOND).alerts == []
    stage.published({KEY: Head(2, 0, "else", {}), "default/b/two": Head(1, 1, two.lineage, {})})
    output = stage.process([(2, 0, reward(one(), 2)), (3, 0, reward(two, 3))], now_us=1, monotonic_us=2 * SECOND)
    assert [a["detector"] for a in output.alerts] == ["learner_superseded"]
    assert [(s["policy"], s["version"]) for s in output.snapshots] == [("b/two", 2)]
    assert Origin.of(stage.dump_dirty()[KEY] or b"").version == 1  # what it learned while it was the owner


def test_records_of_the_same_epoch_change_nothing_but_who_may_publish() -> None:
    worker = Worker(spec_of())
    worker.learn(0, 5)
    worker.see(Head(1, 2, spec_of().lineage, {}))
    worker.see(Head(1, 5, spec_of().lineage, {}))
    worker.learn(5, 6)
    assert worker.published == [(1, 0), (1, 5), (1, 6)]
    worker.see(Head(1, 8, spec_of().lineage, {}))
    worker.learn(6, 7)
    worker.learn(7, 9)
    assert worker.published == [(1, 0), (1, 5), (1, 6), (1, 9)]
    assert worker.alerts == []


def test_an_epoch_of_another_lineage_is_not_ours() -> None:
    worker = Worker(spec_of())
    worker.learn(0, 5)
    worker.see(Head(1, 6, spec_of("else").lineage, {}))
    worker.learn(5, 9)
    assert worker.published == [(1, 0), (1, 5)]
    assert len(worker.alerts) == 1


def test_without_state_the_published_epoch_is_learned_again_from_the_whole_log() -> None:
    first = Worker(spec_of())
    for start in range(0, 30, 7):
        first.learn(start, min(start + 7, 30))
    first.save()
    again = Worker(spec_of(), {}, first.head)
    assert again.published == []
    again.save()
    assert again.saved == {}  # nothing is certain before the first reward
    again.learn(0, 12)
    again.save()
    assert again.published == []  # agents hold version 30; a newcomer must not find version 12
    assert (again.origin.epoch, again.origin.version) == (1, 12)
    again.learn(12, 30)
    again.save()
    assert again.published == [(1, 30)]
    assert again.last == first.last
    assert again.saved == first.saved


def test_a_log_without_its_beginning_begins_the_next_epoch() -> None:
    first = Worker(spec_of())
    first.learn(0, 30)
    again = Worker(spec_of(), {}, first.head)
    again.learn(20, 31, policy_epoch=2)
    again.save()
    assert again.published == [(2, 1)]
    assert (again.origin.epoch, again.origin.began, again.origin.version) == (2, {0: (29, 0)}, 1)


def test_a_log_that_the_published_epoch_was_not_learned_from_begins_the_next_one() -> None:
    """The reward topic was deleted and made anew, the policy topic was not."""
    first = Worker(spec_of())
    first.learn(0, 30)
    again = Worker(spec_of(), {}, first.head)
    again.learn(0, 20)
    again.save()
    again = Worker(spec_of(), again.saved, first.head)
    again.learn(0, 10, source_partition=1)
    assert again.published == []  # as many rewards as the published one, but others
    again.learn(10, 12, source_partition=1)
    again.save()
    assert again.published == [(2, 0)]
    assert again.origin.began == {0: (19, 0), 1: (11, 0)}


def test_rewards_skipped_since_the_last_snapshot_do_not_count_against_a_learner_that_catches_up() -> None:
    first = Worker(spec_of())
    first.learn(0, 5)
    first.save()
    first.learn(5, 9)
    first.learn(9, 12, mode="FALLBACK", features=[])
    assert first.published[-1] == (1, 9)
    head = Head(1, 9, first.head.lineage, {0: (11, 0)})
    again = Worker(spec_of(), first.saved, head)
    again.learn(5, 9)
    assert again.published == []
    again.learn(9, 12, mode="FALLBACK", features=[])
    again.learn(12, 13)
    assert again.published == [(1, 9), (1, 10)]


def test_an_undecodable_first_record_is_part_of_the_log() -> None:
    first = Worker(spec_of())
    first.learn(1, 4)
    again = Worker(spec_of(), {}, first.head)
    again.take(again.stage.process([(0, 0, None)], now_us=1, monotonic_us=again.now))
    again.learn(1, 4)
    assert again.published == [(1, 3)]


def test_without_state_another_lineage_published_begins_the_next_epoch_at_once() -> None:
    first = Worker(spec_of())
    first.learn(0, 30)
    again = Worker(spec_of("stars"), {}, first.head)
    assert again.published == [(2, 0)]
    again.save()
    assert again.origin.began == {0: (29, 0)}


def test_a_policy_that_has_learned_nothing_stays_in_its_epoch_wherever_the_log_begins() -> None:
    first = Worker(spec_of())
    again = Worker(spec_of(), {}, first.head)
    again.learn(500, 502)
    assert again.published == [(1, 0), (1, 2)]


@pytest.mark.parametrize("metric", ["stars", "else"])
def test_an_epoch_published_but_never_saved_goes_on_or_gives_way_to_a_newer_file(metric: str) -> None:
    first = Worker(spec_of())
    first.learn(0, 5)
    first.save()
    died = Worker(spec_of("stars"), first.saved, first.head)
    died.learn(5, 7, policy_epoch=2)
    assert died.published == [(2, 0), (2, 2)]
    again = Worker(spec_of(metric), first.saved, died.head)
    again.learn(5, 8, policy_epoch=3)
    again.save()
    assert again.published == ([(2, 3)] if metric == "stars" else [(3, 0), (3, 3)])
    assert again.origin.began == {0: (4, 0)}
    assert Origin.of(again.saved[old_key(KEY, 1)]).version == 5
    assert again.alerts == []


def test_a_new_epoch_that_somebody_else_has_long_begun_leaves_what_is_saved_alone() -> None:
    first = Worker(spec_of())
    first.learn(0, 5)
    first.save()
    before = dict(first.saved)
    late = Worker(spec_of("stars"), first.saved, Head(4, 9, spec_of("stars").lineage, {}))
    late.save()
    assert late.published == []
    assert late.saved == before
    assert len(late.alerts) == 1


def test_a_snapshot_made_on_the_way_leaves_no_trace_in_the_state() -> None:
    quiet, busy = PolicyLearner(spec_of()), PolicyLearner(spec_of())
    for n in range(40):
        one_more = reward(spec_of(), n, quality=n / 40, reward_spec=spec_of().reward_hash)
        quiet.learn_one(one_more)
        busy.learn_one(one_more)
        busy.snapshot(n)
    assert quiet.to_state() == busy.to_state()
    assert quiet.snapshot(7).to_record() == busy.snapshot(7).to_record()
