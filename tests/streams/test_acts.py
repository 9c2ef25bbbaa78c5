"""Acts of operators in the learning stage: what agents get, what is on record, and that the log gives all of it again."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from console.relearn import Part, merged
from learners.acts import Act
from learners.guard_spec import GuardSpec
from learners.lineage import Head, head_of, newest, rebuild, vector_of
from learners.policies import Policies
from learners.shard_keys import shard_key
from learners.spec import PolicySpec
from learners.state import Origin
from steersman.arms import ArmSpace
from steersman.clock import SYSTEM_CLOCK
from steersman.codec import Codec
from steersman.errors import SnapshotError
from steersman.policy_book import PolicyBook
from steersman.throttle import Throttle
from streams.control import ControlLog, act_of
from streams.learning_stage import LearningOutput, LearningStage, partition_of
from tests.learners.test_guard import GUARDED, LOG
from tests.streams.test_learning_stage import SECOND, one, reward
from tests.streams.test_sharded_learning import KEY, PARTITIONS, Cluster, spec_of

SNAPSHOTS, ACTS = Codec("policy_snapshot"), Codec("policy_act")


class Operated:
    """A stage, an operator's control topic, and an agent that holds what is published."""

    def __init__(self, spec: PolicySpec, saved: Mapping[str, bytes] | None = None) -> None:
        self.spec = spec
        self.policies = Policies.of(spec)
        self.saved = dict(saved or {})
        self.acts: list[tuple[int, Act]] = []
        self.outcomes: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.published: list[dict[str, Any]] = []
        self.log: list[Mapping[str, Any]] = []
        self.book = PolicyBook(spec.tenant, None, None, None, SYSTEM_CLOCK, Throttle())
        self.now = itertools.count(1_000_000_000_000_000)
        self.monotonic = 0
        self._ids = itertools.count()
        self.start()

    def start(self) -> None:
        """A worker begins, with what is saved and what is on the topics."""
        self.stage = LearningStage(self.policies, 0, 1, publish_interval_us=0, publish_interval_max_us=0)
        self.stage.restore(self.saved.items())
        self.stage.published(self.heads())
        self.due()

    def heads(self) -> dict[str, Head]:
        """What the policy topic says."""
        head: Head | None = None
        for snapshot in self.published:
            head = newest(head, head_of(snapshot))
        return {} if head is None else {self.spec.key: head}

    def due(self) -> LearningOutput:
        """Let the stage publish what it wants, saving whenever it asks for that."""
        self.stage.revise()
        answered = frozenset(record["act_id"] for record in self.outcomes)
        self.stage.operate(ControlLog({self.spec.key: tuple(self.acts)}, answered))
        self.monotonic += SECOND
        out = self.stage.due(now_us=next(self.now), monotonic_us=self.monotonic)
        self._take(out)
        if out.save:
            self.save()
            return self.due()
        return out

    def learn(self, n: int) -> None:
        """Rewards of the log, one by one."""
        for _ in range(n):
            offset = len(self.log)
            self.log.append(self.reward(offset))
            self.monotonic += SECOND
            self._take(
                self.stage.process(
                    [(offset, 0, self.log[-1])], now_us=next(self.now), monotonic_us=self.monotonic
                )
            )  # fmt: skip
        self.due()

    def reward(self, offset: int) -> Mapping[str, Any]:
        if self.spec.guard is not None:
            return LOG[offset]
        arms = self.spec.arms.labels
        return reward(self.spec, offset, quality=offset * 37 % 101 / 100, arm=arms[offset % len(arms)])

    def _take(self, out: LearningOutput) -> None:
        for snapshot in out.snapshots:
            value = SNAPSHOTS.encode(snapshot)
            self.book.read(self.spec.key.encode(), value, ())
            self.published.append(snapshot)
            held = self.book.get(self.spec.name)
            assert held is not None
            got = {**held.snapshot.to_record(), "created_at": 0}
            assert got == {**snapshot, "created_at": 0}, "an agent follows everything that is published"
        if out.snapshots:
            self.stage.published(self.heads())
        self.outcomes += [ACTS.decode(ACTS.encode(record)) for record in out.acts]
        self.alerts += out.alerts

    def save(self) -> None:
        for key, value in self.stage.dump_dirty().items():
            if value is None:
                self.saved.pop(key)
            else:
                self.saved[key] = value

    def ask(self, act: str, to: Mapping[str, Any] | None = None, **more: Any) -> Act:
        """Write an act to the topic, and let the stage read it."""
        record = {
            "act_id": f"act{next(self._ids)}", "ts": 7, "tenant": self.spec.tenant, "policy": self.spec.name, "act": act,
            "who": "ann", "why": "test", "snapshot": b"", **more,
        }  # fmt: skip
        if to is not None:
            record |= {"epoch": to["epoch"], "version": to["version"], "snapshot": SNAPSHOTS.encode(to)}
        made = act_of(ACTS.decode(ACTS.encode(record)), None)
        self.acts.append((len(self.acts), made))
        self.due()
        return made

    @property
    def last(self) -> dict[str, Any]:
        return self.published[-1]

    def told(self) -> list[str]:
        """What became of the acts, one after the other."""
        return [f"{r['act']} {r['outcome']} {r['standing']}" for r in self.outcomes]

    def check_rebuild(self) -> None:
        """The log and what is saved give the saved state and the newest snapshot again, to the byte."""
        self.save()
        state = self.saved[self.spec.key]
        origin = Origin.of(state)
        again = rebuild(self.spec, origin.epoch, origin.began, self.log, origin.sources, state)
        assert again.to_state() == state
        last = self.last
        made = rebuild(
            self.spec, origin.epoch, origin.began, self.log, vector_of(last), state, last["revision"], last["acts"]
        )
        assert made.snapshot(last["created_at"]).to_record() == last


def weights(snapshot: Mapping[str, Any]) -> bytes:
    return b"".join(tensor["data"] for tensor in snapshot["tensors"])


def test_a_pinned_policy_keeps_its_weights_while_learning_goes_on() -> None:
    run = Operated(one())
    run.learn(20)
    old = run.last
    run.learn(20)
    run.ask("PIN", old)
    pinned = run.last
    assert (pinned["epoch"], pinned["version"], pinned["pinned"], pinned["acts"]) == (1, 40, "1.20", 1)
    assert (weights(pinned), pinned["stage"], pinned["applied_n"]) == (weights(old), "LIVE", 40)
    assert run.told() == ["PIN APPLIED pinned"]
    run.learn(30)
    assert run.last is pinned, "what is learned meanwhile is nobody's business"
    run.check_rebuild()
    run.start()
    assert run.last is pinned
    run.ask("UNPIN")
    assert (run.last["version"], run.last["pinned"], run.last["acts"]) == (70, "", 2)
    straight = Operated(one())
    straight.learn(70)
    assert weights(run.last) == weights(straight.last), "nothing was missed"
    run.check_rebuild()


def test_a_pin_at_the_version_that_agents_hold_is_newer_for_them() -> None:
    run = Operated(one())
    run.learn(5)
    old = run.last
    run.learn(5)
    version = run.last["version"]
    run.ask("PIN", old)
    run.ask("UNPIN")
    assert [s["version"] for s in run.published[-3:]] == [version] * 3
    stamps = [s["created_at"] for s in run.published[-3:]]
    assert stamps == sorted(set(stamps))


def test_a_clock_that_is_behind_does_not_keep_an_act_from_the_agents() -> None:
    run = Operated(one())
    run.learn(5)
    run.now = itertools.count(5)  # the worker that took over
    run.save()
    run.start()
    run.ask("RETIRE")
    assert run.last["stage"] == "RETIRED"


def test_freeze_publishes_once_more_and_unfreeze_goes_on() -> None:
    run = Operated(one())
    run.learn(10)
    run.ask("FREEZE")
    assert (run.last["stage"], run.last["version"]) == ("FROZEN", 10)
    frozen = run.last
    run.learn(10)
    run.save()
    run.start()
    run.learn(1)
    assert run.last is frozen
    run.check_rebuild()
    run.ask("FREEZE")
    assert run.outcomes[-1]["reason"] == "the policy is frozen already"
    run.ask("UNFREEZE")
    assert (run.last["stage"], run.last["version"]) == ("LIVE", 21)
    run.check_rebuild()


def test_retired_until_restored() -> None:
    run = Operated(one())
    run.learn(10)
    run.ask("RETIRE")
    assert run.last["stage"] == "RETIRED"
    retired = run.last
    run.learn(10)
    run.ask("PROMOTE")
    run.ask("PIN", run.published[0])
    assert run.last is retired
    assert [r["reason"] for r in run.outcomes[1:]] == ["the policy is retired: restore it first"] * 2
    run.ask("RESTORE")
    assert (run.last["stage"], run.last["version"]) == ("LIVE", 20)
    run.check_rebuild()


def test_a_policy_without_a_guard_is_rolled_back_and_promoted_step_by_step() -> None:
    run = Operated(one())
    run.learn(10)
    run.ask("ROLLBACK")
    steps = []
    for _ in range(5):
        steps.append((run.last["stage"], run.last["canary_share"]))
        run.learn(3)
        run.ask("PROMOTE")
    assert steps == [("SHADOW", 1.0), ("CANARY", 0.1), ("CANARY", 0.5), ("LIVE", 1.0), ("LIVE", 1.0)]
    assert run.outcomes[-1]["reason"] == "the policy is live already"
    run.check_rebuild()


@pytest.mark.parametrize("cuts", [(15, 25, 40), (60, 61, 90), (31, 31, 31)])
def test_a_guarded_policy_obeys_and_its_guard_goes_on_from_there(cuts: tuple[int, int, int]) -> None:
    run = Operated(GUARDED)
    done = 0
    for cut, act in zip(cuts, ("PROMOTE", "PROMOTE", "ROLLBACK"), strict=True):
        run.learn(cut - done)
        done = cut
        before = run.last["stage"], run.last["canary_share"]
        run.ask(act)
        if run.outcomes[-1]["outcome"] == "APPLIED":
            assert (run.last["stage"], run.last["canary_share"]) != before or before[0] == "SHADOW"
            assert run.alerts[-1]["message"].endswith(": ann: test.")
    assert len({alert["alert_id"] for alert in run.alerts}) == len(run.alerts)
    assert run.last["stage"] == "SHADOW"
    run.check_rebuild()
    run.save()
    run.start()
    run.learn(150)
    assert run.last["stage"] != "SHADOW", "after its cooldown it is tried again"
    run.check_rebuild()


def test_a_rollback_of_a_guarded_policy_has_the_cooldown_of_any_other() -> None:
    run = Operated(GUARDED)
    run.learn(100)
    assert run.last["stage"] in ("CANARY", "LIVE")
    run.ask("ROLLBACK")
    alert = run.alerts[-1]
    assert (alert["severity"], run.last["stage"], run.last["version"]) == ("CRITICAL", "SHADOW", 100)
    run.learn(39)
    assert run.last["stage"] == "SHADOW"
    run.learn(2)
    assert run.last["stage"] == "CANARY"


def test_a_guard_that_is_pinned_still_takes_the_policy_back() -> None:
    run = Operated(GUARDED)
    run.learn(120)
    old = run.last
    run.learn(10)
    run.ask("PIN", old)
    assert (run.last["pinned"], run.last["stage"]) == (f"1.{old['version']}", old["stage"])
    run.ask("ROLLBACK")
    assert (run.last["pinned"], run.last["stage"]) == ("", "SHADOW")
    run.check_rebuild()


def test_a_pin_after_a_rollback_is_followed() -> None:
    run = Operated(one())
    run.learn(10)
    good = run.last
    run.ask("ROLLBACK")
    assert run.last["stage"] == "SHADOW"
    run.ask("PIN", good)
    assert (run.last["stage"], run.last["pinned"]) == ("LIVE", "1.10")
    run.ask("UNPIN")
    assert (run.last["stage"], run.last["pinned"]) == ("LIVE", "")
    run.check_rebuild()


def test_an_act_is_obeyed_once_however_often_it_comes() -> None:
    run = Operated(one())
    run.learn(10)
    act = run.ask("FREEZE")
    run.ask("UNFREEZE")
    run.acts.append((2, act))
    run.due()
    run.save()
    run.start()
    assert run.last["stage"] == "LIVE"
    assert run.told() == ["FREEZE APPLIED frozen", "UNFREEZE APPLIED live"]


def test_acts_of_a_topic_that_was_made_anew_are_obeyed() -> None:
    run = Operated(one())
    run.learn(10)
    run.ask("FREEZE")
    run.ask("UNFREEZE")
    run.save()
    run.acts = []  # the topic was deleted and made anew
    run.start()
    run.ask("RETIRE", ts=8)
    run.ask("RESTORE", ts=9)
    run.save()
    run.start()
    assert run.told()[2:] == ["RETIRE APPLIED retired", "RESTORE APPLIED live"]
    run.check_rebuild()


def test_an_act_is_on_record_before_anything_is_published_under_it() -> None:
    run = Operated(one())
    run.learn(10)
    run.save()
    crashed = dict(run.saved)
    run.acts.append((0, Act("a", "RETIRE", 7)))
    run.stage.operate(ControlLog({run.spec.key: tuple(run.acts)}))
    out = run.stage.due(now_us=next(run.now), monotonic_us=99 * SECOND)
    assert (out.snapshots, out.acts, out.save) == ([], [], True)
    assert out.counters["acts_applied"] == 1
    run.saved = crashed
    run.start()
    assert run.last["stage"] == "RETIRED"
    assert run.told() == ["RETIRE APPLIED retired"]


def test_an_outcome_that_was_saved_and_not_told_is_told_after_the_restart() -> None:
    run = Operated(one())
    run.learn(10)
    run.ask("FREEZE")
    told = run.outcomes
    run.outcomes = []
    run.save()
    run.start()
    assert run.outcomes == told, "word by word"


def test_what_an_act_supposes_must_be_so() -> None:
    run = Operated(one())
    run.learn(10)
    run.ask("FREEZE", expected="canary")
    assert run.outcomes[-1]["reason"].startswith("the policy is live, not canary")
    assert run.last["stage"] == "LIVE"
    run.ask("FREEZE", expected="live")
    assert run.last["stage"] == "FROZEN"


def test_acts_stay_when_an_epoch_begins_and_a_pin_ends_with_its_arms() -> None:
    run = Operated(one())
    run.learn(20)
    run.ask("PIN", run.last)
    run.ask("RETIRE")
    wider = replace(one(), arms=ArmSpace({"model": ["small", "medium", "large"]}))
    assert run.policies.become(Policies.of(wider)) == []
    run.due()
    assert (run.last["epoch"], run.last["stage"], run.last["pinned"], run.last["acts"]) == (2, "RETIRED", "", 2)
    run.spec = wider
    run.ask("RESTORE")
    assert (run.last["stage"], run.last["acts"]) == ("LIVE", 3)
    run.ask("PIN", run.published[5])
    assert "of another lineage" in run.outcomes[-1]["reason"]


def test_a_lost_state_leaves_a_retired_policy_retired() -> None:
    run = Operated(one())
    run.learn(20)
    run.ask("RETIRE")
    run.saved = {}
    run.start()
    assert (run.last["epoch"], run.last["version"], run.last["stage"]) == (2, 0, "RETIRED")


def test_a_learner_that_has_gone_astray_can_still_be_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Operated(one())
    run.learn(20)
    good = run.last
    learner = type(run.stage._held[run.spec.key].learner)
    whole = learner.snapshot

    def astray(self: Any, now_us: int) -> Any:
        if self.version:
            raise SnapshotError("not finite")
        return whole(self, now_us)

    monkeypatch.setattr(learner, "snapshot", astray)
    run.learn(1)
    assert run.last is good
    run.ask("ROLLBACK", good)
    assert (run.last["pinned"], run.last["version"]) == ("1.20", 21)
    run.ask("ROLLBACK")
    assert run.last["stage"] == "SHADOW"
    run.ask("RETIRE")
    assert run.last["stage"] == "RETIRED"


OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("another policy or version", {"version": 3}),
    ("itself a copy of 1.2", {"pinned": "1.2"}),
    ("cannot be used", {"baseline": "no such arm"}),
]


@pytest.mark.parametrize(("why", "change"), OTHERS)
def test_a_snapshot_that_is_not_what_it_says_is_refused(why: str, change: dict[str, Any]) -> None:
    run = Operated(one())
    run.learn(5)
    said = {"epoch": 1, "version": 5, "snapshot": SNAPSHOTS.encode({**run.last, **change})}
    run.ask("PIN", **said)
    assert why in run.outcomes[-1]["reason"]
    assert run.last["pinned"] == ""


def test_frozen_by_the_file_and_by_an_act_are_two_things() -> None:
    run = Operated(replace(GUARDED, guard=GuardSpec(start="live", freeze=True)))
    run.learn(5)
    assert run.last["stage"] == "FROZEN"
    run.ask("UNFREEZE")
    assert "taken out there" in run.outcomes[-1]["reason"]
    run.ask("RETIRE")
    assert run.last["stage"] == "RETIRED"


def test_a_policy_in_shards_obeys_through_its_merger() -> None:
    cluster = Cluster(spec_of(4))
    home = partition_of(KEY, PARTITIONS)

    def learn(n: int) -> None:
        cluster.send(n)
        for p in range(PARTITIONS):
            cluster.learn(p, 10 * n)
        cluster.look()

    def ask(*acts: Act) -> None:
        for stage in cluster.stages:
            stage.operate(ControlLog({KEY: tuple(enumerate(acts))}))
        cluster.look()
        cluster.save(home)
        cluster.look()

    learn(20)
    old = cluster.snapshots[-1]
    learn(20)
    aim = {"epoch": old["epoch"], "version": old["version"], "snapshot": SNAPSHOTS.encode(old)}
    wish = {"act_id": "a", "ts": 7, "tenant": "default", "policy": "a/one", "act": "PIN", **aim}
    pin = act_of(ACTS.decode(ACTS.encode(wish)), None)
    ask(pin)
    last = cluster.snapshots[-1]
    assert (last["version"], last["pinned"], weights(last)) == (40, "1.20", weights(old))
    learn(20)
    assert cluster.snapshots[-1] is last
    for p in range(PARTITIONS):
        cluster.save(p)
    cluster.start()
    ask(pin)
    assert cluster.snapshots[-1] is last, "a restart publishes nothing new"
    state = cluster.state(KEY)
    parts = []
    for k in range(4):
        item = shard_key(KEY, k)
        origin = Origin.of(cluster.state(item))
        upto = {"state": Origin.of(state).sources, "snapshot": vector_of(last)}
        parts.append(Part(cluster.spec, k, origin.epoch, origin.began, upto))
        for one_of in parts[-1].rebuilds.values():
            one_of.feed(cluster.log[partition_of(item, PARTITIONS)])
    again = merged(cluster.spec, 1, [part.rebuilds["state"] for part in parts], state)
    assert again.to_state() == state
    made = merged(cluster.spec, 1, [part.rebuilds["snapshot"] for part in parts], state, last["acts"])
    assert made.snapshot(last["created_at"]).to_record() == last
    ask(pin, Act("b", "UNPIN", 8))
    assert (cluster.snapshots[-1]["version"], cluster.snapshots[-1]["pinned"]) == (60, "")
