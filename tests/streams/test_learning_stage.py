"""The learning stage: what is published and when, with the real learner; a learner that refuses is a small one of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import pytest
from aiokafka.partitioner import DefaultPartitioner

from learners.policies import Policies
from learners.policies_file import parse_policies
from learners.policy_learner import PolicyLearner
from learners.protocol import LearnReport
from learners.spec import PolicySpec
from steersman.codec import Codec
from steersman.errors import SnapshotError
from steersman.snapshot import PolicySnapshot
from streams.learning_stage import LearningStage, partition_of

POLICIES = parse_policies(
    """
[[policy]]
name = "a/one"
baseline = { model = "large" }
[policy.knobs]
model = ["small", "large"]

[[policy]]
name = "b/two"
baseline = { model = "large" }
[policy.knobs]
model = ["small", "large"]
"""
)
SECOND = 1_000_000


def reward(spec: PolicySpec, offset: int, *, quality: float = 1.0, **changes: Any) -> dict[str, Any]:
    return {
        "decision_id": f"d{offset}", "tenant": spec.tenant, "policy": spec.name, "trace_id": "t", "agent": "",
        "ts": 5, "decided_at": 1, "policy_epoch": 1, "policy_version": 0, "arm": "model=small", "propensity": 0.5,
        "explored": False, "mode": "LIVE", "features": [1.0], "eligible": [], "quality": quality,
        "quality_defaulted": False, "cost_micro_usd": 10, "latency_us": 20, "failures": 0, "utility": quality,
        "reward_spec": spec.reward_hash, "input_tokens": 0, "output_tokens": 0, "spans": 1, "feedback_count": 1,
        "feedback_delay_us": 1, "closed_by": "COMPLETE", "source_partition": 0, "source_offset": offset, "seq": 0,
        **changes,
    }  # fmt: skip


def stage_of(policies: Policies = POLICIES, **options: Any) -> LearningStage:
    return LearningStage(policies, 0, 1, **options)


def one() -> PolicySpec:
    spec = POLICIES.get("default", "a/one")
    assert spec is not None
    return spec


def versions(output: Any) -> dict[str, int]:
    return {snapshot["policy"]: snapshot["version"] for snapshot in output.snapshots}


def test_publishes_version_zero_of_every_policy_at_the_start_and_then_nothing() -> None:
    stage = stage_of()
    first = stage.due(now_us=10, monotonic_us=0)
    assert versions(first) == {"a/one": 0, "b/two": 0}
    codec = Codec("policy_snapshot")
    for snapshot in first.snapshots:
        assert PolicySnapshot.from_record(codec.decode(codec.encode(snapshot))).key.startswith("default/")
    assert stage.due(now_us=20, monotonic_us=10 * SECOND).snapshots == []


def test_publishes_a_changed_policy_at_most_once_per_interval() -> None:
    stage = stage_of(publish_interval_us=100_000)
    stage.due(now_us=0, monotonic_us=0)
    now = 200_000
    assert versions(stage.process([(0, 0, reward(one(), 0))], now_us=1, monotonic_us=now)) == {"a/one": 1}
    assert versions(stage.process([(1, 0, reward(one(), 1))], now_us=1, monotonic_us=now + 50_000)) == {}
    assert versions(stage.process([(2, 0, reward(one(), 2))], now_us=1, monotonic_us=now + 60_000)) == {}
    assert versions(stage.due(now_us=1, monotonic_us=now + 99_999)) == {}
    assert versions(stage.due(now_us=1, monotonic_us=now + 100_000)) == {"a/one": 3}
    assert versions(stage.due(now_us=1, monotonic_us=now + 900_000)) == {}


def test_a_policy_that_has_seen_more_is_published_less_often_but_at_once_after_a_pause() -> None:
    stage = stage_of(publish_interval_us=100_000, publish_interval_max_us=500_000)
    stage.due(now_us=0, monotonic_us=0)
    stage.process([(n, 0, reward(one(), n)) for n in range(1500)], now_us=1, monotonic_us=SECOND)
    assert versions(stage.process([(1500, 0, reward(one(), 1500))], now_us=1, monotonic_us=SECOND + 299_999)) == {}
    assert versions(stage.due(now_us=1, monotonic_us=SECOND + 300_200)) == {"a/one": 1501}
    assert versions(stage.process([(1501, 0, reward(one(), 1501))], now_us=1, monotonic_us=3 * SECOND)) == {
        "a/one": 1502
    }
    stage.process([(n, 0, reward(one(), n)) for n in range(1502, 5000)], now_us=1, monotonic_us=3 * SECOND + 1)
    assert versions(stage.due(now_us=1, monotonic_us=3 * SECOND + 499_999)) == {}
    assert versions(stage.due(now_us=1, monotonic_us=3 * SECOND + 500_000)) == {"a/one": 5000}


def test_a_learner_that_is_not_ready_is_published_when_it_is() -> None:
    class Busy(PolicyLearner):
        busy = False

        @property
        def ready(self) -> bool:
            return not Busy.busy

    stage = stage_of(make=Busy, publish_interval_us=100_000)
    stage.due(now_us=0, monotonic_us=0)
    Busy.busy = True
    assert versions(stage.process([(0, 0, reward(one(), 0))], now_us=1, monotonic_us=SECOND)) == {}
    assert versions(stage.due(now_us=1, monotonic_us=2 * SECOND)) == {}
    Busy.busy = False
    assert versions(stage.due(now_us=1, monotonic_us=2 * SECOND + 1)) == {"a/one": 1}


def test_repeated_rewards_change_and_publish_nothing() -> None:
    stage = stage_of()
    batch = [(n, 0, reward(one(), n)) for n in range(5)]
    stage.process(batch, now_us=1, monotonic_us=0)
    again = stage.process(batch, now_us=2, monotonic_us=10 * SECOND)
    assert again.snapshots == []
    assert again.counters["duplicates"] == 5
    assert again.counters["applied"] == 0


def test_state_goes_on_where_it_was_and_publishes_the_restored_version() -> None:
    stage = stage_of()
    stage.process([(n, 0, reward(one(), n)) for n in range(7)], now_us=1, monotonic_us=0)
    dumped = stage.dump_dirty()
    assert list(dumped) == ["ledger", "default/a/one", "default/b/two"]
    assert stage.dump_dirty() == {}
    restored = stage_of()
    restored.restore([(key, value) for key, value in dumped.items() if value is not None])
    assert restored.dump_dirty() == {}
    first = restored.due(now_us=1, monotonic_us=0)
    assert versions(first) == {"a/one": 7, "b/two": 0}
    both = [
        s.process([(7, 0, reward(one(), 7, quality=0.25))], now_us=9, monotonic_us=99 * SECOND)
        for s in (stage, restored)
    ]
    assert both[0].snapshots == both[1].snapshots


def test_a_reward_of_an_unknown_policy_is_rejected() -> None:
    output = stage_of().process([(4, 0, reward(one(), 4, policy="nobody"))], now_us=1, monotonic_us=0)
    [(offset, error)] = output.rejected
    assert (offset, error.reason) == (4, "unknown_policy")


class _Broken:
    """A learner whose snapshots are not fit to be used from version 1 on."""

    def __init__(self, spec: PolicySpec, epoch: int = 1, began: Mapping[int, tuple[int, int]] | None = None) -> None:
        self.epoch = epoch
        self.began = self.sources = dict(began or {})
        self.version = 0
        self.ready = True

    def learn_many(self, rewards: Sequence[Mapping[str, Any]]) -> LearnReport:
        self.version += len(rewards)
        return LearnReport(applied=len(rewards), outcomes=["applied"] * len(rewards))

    def snapshot(self, now_us: int) -> PolicySnapshot:
        raise SnapshotError("weights.quality is not finite")

    def to_state(self) -> bytes:
        return b""

    @classmethod
    def from_state(cls, spec: PolicySpec, data: bytes) -> Self:
        return cls(spec)


def test_a_learner_that_diverges_publishes_nothing_and_raises_one_alert_per_version() -> None:
    stage = stage_of(Policies.of(one()), make=_Broken)
    first = stage.due(now_us=1, monotonic_us=0)
    second = stage.process([(0, 0, reward(one(), 0))], now_us=2, monotonic_us=SECOND)
    third = stage.due(now_us=3, monotonic_us=2 * SECOND)
    assert first.snapshots == second.snapshots == third.snapshots == []
    assert [a["detector"] for a in first.alerts + second.alerts] == ["learner_rejected"] * 2
    assert first.alerts[0]["alert_id"] != second.alerts[0]["alert_id"]
    assert third.alerts == []
    Codec("alert").encode(second.alerts[0])


@pytest.mark.parametrize("partitions", [1, 3, 12])
def test_partitions_keys_as_kafka_does(partitions: int) -> None:
    everyone = list(range(partitions))
    for number in range(200):
        key = f"default/p{number}"
        assert partition_of(key, partitions) == DefaultPartitioner()(key.encode(), everyone, everyone)


def test_holds_exactly_the_policies_of_its_partition() -> None:
    held = [versions(LearningStage(POLICIES, p, 5).due(now_us=1, monotonic_us=0)) for p in range(5)]
    assert sorted(name for policies in held for name in policies) == ["a/one", "b/two"]


def test_every_reward_is_on_record_under_what_became_of_it() -> None:
    stage = stage_of()
    batch = [
        (0, 60_000_000, reward(one(), 0)),
        (1, 0, None),
        (2, 0, reward(one(), 0)),
        (3, 0, reward(one(), 3, mode="FALLBACK", features=[])),
        (4, 0, reward(one(), 4, policy="nobody")),
    ]
    stage.process(batch, now_us=1, monotonic_us=0)
    entries = {(e["outcome"], e["reason"]): (e["n"], e["policy"], e["amount"]) for e in stage.audit()}
    assert entries == {
        ("applied", ""): (1, "a/one", 10),
        ("rejected", "unreadable"): (1, "", 0),
        ("duplicate", ""): (1, "a/one", 10),
        ("skipped", "fallback"): (1, "a/one", 10),
        ("rejected", "unknown_policy"): (1, "nobody", 10),
    }
    assert stage.audit() == []
    again = stage_of()
    again.restore((key, value) for key, value in stage.dump_dirty().items() if value is not None)
    again.process([*batch, (5, 0, reward(one(), 5))], now_us=1, monotonic_us=0)
    assert [(e["outcome"], e["n"], e["version"]) for e in again.audit()] == [("applied", 2, 6)]
