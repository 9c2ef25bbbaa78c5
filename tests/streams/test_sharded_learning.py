"""A policy in shards, in the learning stages of all partitions: logs, saved state, crashes and hand-overs, without Kafka."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from console.relearn import Part, merged
from learners.lineage import Head, head_of, newest, vector_of
from learners.policies import Policies
from learners.policy_learner import PolicyLearner
from learners.shard_keys import shard_key
from learners.shards import ByShard, Statistics, merge_shards
from learners.spec import PolicySpec, RewardSpec
from learners.state import Origin
from streams.held_learner import old_key
from streams.held_shard import HeldMerger, HeldShard
from streams.learning_stage import LearningOutput, LearningStage, partition_of
from tests.streams.test_learning_stage import SECOND, one, reward

KEY = "default/a/one"
PARTITIONS = 3
SOURCES = 5


def spec_of(shards: int = 4, metric: str = "quality") -> PolicySpec:
    return replace(one(), reward=RewardSpec(metric=metric), shards=shards)


class Cluster:
    """The learning stages of all partitions, and the topics between them. A topic is seen when somebody looks."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self.log: list[list[dict[str, Any]]] = [[] for _ in range(PARTITIONS)]
        self.saved: list[dict[str, bytes]] = [{} for _ in range(PARTITIONS)]
        self.marker = [0] * PARTITIONS
        self.heads: dict[str, Head] = {}
        self.statistics: dict[tuple[str, str], Statistics] = {}
        self.snapshots: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.outcomes: Counter[str] = Counter()
        self.now = 0
        self.sent = 0
        self.start()

    def start(self, spec: PolicySpec | None = None) -> None:
        """All workers start (again), from what is saved."""
        self.spec = spec or self.spec
        self.stages: list[LearningStage] = [self.stage(p) for p in range(PARTITIONS)]
        self.read = list(self.marker)
        self.look()

    def stage(self, partition: int) -> LearningStage:
        stage = LearningStage(Policies.of(self.spec), partition, PARTITIONS, publish_interval_us=0)
        stage.restore(self.saved[partition].items())
        return stage

    def crash(self, partition: int) -> None:
        self.stages[partition] = self.stage(partition)
        self.read[partition] = self.marker[partition]
        self.show(partition)

    def show(self, partition: int) -> None:
        """Let a partition see what is published."""
        self.stages[partition].published(dict(self.heads), dict(self.statistics))
        self.take(self.stages[partition].due(now_us=1, monotonic_us=self.tick()))

    def look(self) -> None:
        """Everybody sees everything, until nobody has anything to say any more."""
        for _ in range(2):
            for partition in range(PARTITIONS):
                self.show(partition)

    def tick(self) -> int:
        self.now += SECOND
        return self.now

    def send(self, n: int, **changes: Any) -> None:
        for _ in range(n):
            self.sent += 1
            record = reward(
                self.spec, self.sent, quality=self.sent * 37 % 101 / 100, source_partition=self.sent % SOURCES,
                **{"reward_spec": self.spec.reward_hash, **changes},
            )  # fmt: skip
            key = self.spec.reward_key(record["source_partition"])
            self.log[partition_of(key, PARTITIONS)] += [record] * (2 if self.sent % 7 == 0 else 1)

    def learn(self, partition: int, n: int) -> None:
        start = self.read[partition]
        batch = [(start + i, 0, r) for i, r in enumerate(self.log[partition][start : start + n])]
        self.take(self.stages[partition].process(batch, now_us=1, monotonic_us=self.tick()))
        self.read[partition] += len(batch)

    def save(self, partition: int) -> None:
        for key, value in self.stages[partition].dump_dirty().items():
            if value is None:
                self.saved[partition].pop(key)
            else:
                self.saved[partition][key] = value
        self.marker[partition] = self.read[partition]

    def take(self, output: LearningOutput) -> None:
        for snapshot in output.snapshots:
            self.snapshots.append(snapshot)
            self.heads[KEY] = newest(self.heads.get(KEY), head_of(snapshot))
        for item, state in output.statistics:
            seen = Statistics.of(state)
            if seen.follows(self.statistics.get((item, seen.origin.lineage))):
                self.statistics[item, seen.origin.lineage] = seen
        self.alerts += output.alerts
        self.outcomes.update(output.counters)
        assert output.rejected == []

    def finish(self) -> None:
        for partition in range(PARTITIONS):
            self.learn(partition, len(self.log[partition]))
            self.save(partition)
        self.look()
        for partition in range(PARTITIONS):
            self.save(partition)

    @property
    def ranks(self) -> list[tuple[int, int]]:
        return [(s["epoch"], s["version"]) for s in self.snapshots]

    def whole_log(self) -> list[dict[str, Any]]:
        return [record for log in self.log for record in log]

    def state(self, item: str) -> bytes:
        return self.saved[partition_of(item, PARTITIONS)][item]


def weights(record: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.concatenate([np.frombuffer(t["data"], "<f4").ravel() for t in record["tensors"]])


def check(cluster: Cluster) -> None:
    """The published policy is that of one learner, every version has one content, and the log gives all of it again."""
    spec = cluster.spec
    single = PolicyLearner(replace(spec, shards=1))
    single.learn_many(cluster.whole_log())
    last = max(cluster.snapshots, key=lambda s: (s["epoch"], s["version"]))
    assert (last["epoch"], last["version"], last["applied_n"]) == (1, cluster.sent, cluster.sent)
    wanted = single.snapshot(1).to_record()
    assert (last["applied_hash"], last["applied_sources"]) == (wanted["applied_hash"], wanted["applied_sources"])
    np.testing.assert_allclose(weights(last), weights(wanted), rtol=1e-6)
    parts = [cluster.statistics[shard_key(KEY, k), spec.lineage].state for k in range(spec.shards)]
    whole = merge_shards(spec, 1, dict(enumerate(parts)))
    assert isinstance(whole, PolicyLearner)
    for ours, theirs in zip(whole.posteriors(), single.posteriors(), strict=True):
        np.testing.assert_allclose(ours.theta, theirs.theta, rtol=1e-9)
        np.testing.assert_allclose(
            ours.covariance(whole.layout.dim), theirs.covariance(whole.layout.dim), rtol=1e-9, atol=1e-15
        )
    contents: dict[tuple[int, int], dict[str, Any]] = {}
    for record in cluster.snapshots:
        assert record == contents.setdefault((record["epoch"], record["version"]), record)
    state = cluster.state(KEY)
    upto = {"state": Origin.of(state).sources, "snapshot": vector_of(last)}
    again = []
    for k in range(spec.shards):
        own = cluster.state(shard_key(KEY, k))
        origin = Origin.of(own)
        part = Part(spec, k, origin.epoch, origin.began, upto | {"own": origin.sources})
        for rebuild in part.rebuilds.values():
            rebuild.feed(cluster.log[partition_of(shard_key(KEY, k), PARTITIONS)])
        assert part.rebuilds["own"].learner.to_state() == own
        again.append(part)
    assert merged(spec, 1, [part.rebuilds["state"] for part in again]).to_state() == state
    assert merged(spec, 1, [part.rebuilds["snapshot"] for part in again]).snapshot(1).to_record() == last


def test_two_shards_of_one_policy_may_be_in_one_partition() -> None:
    homes = Counter(partition_of(shard_key(KEY, k), PARTITIONS) for k in range(4))
    assert max(homes.values()) > 1
    stage = LearningStage(Policies.of(spec_of()), partition_of(KEY, PARTITIONS), PARTITIONS)
    assert any(isinstance(held, HeldMerger) for held in stage._held.values())
    total = [
        held
        for p in range(PARTITIONS)
        for held in LearningStage(Policies.of(spec_of()), p, PARTITIONS)._held.values()
        if isinstance(held, HeldShard)
    ]
    assert sorted(held.item for held in total) == [shard_key(KEY, k) for k in range(4)]


steps = st.lists(
    st.tuples(st.sampled_from(["send", "learn", "learn", "save", "show", "crash", "all"]), st.integers(0, 40)),
    max_size=60,
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(shards=st.sampled_from([2, 4, 7]), script=steps)
def test_whatever_happens_the_sum_is_what_one_learner_learns(shards: int, script: list[tuple[str, int]]) -> None:
    cluster = Cluster(spec_of(shards))
    cluster.send(10)
    for what, n in script:
        partition = n % PARTITIONS
        if what == "send":
            cluster.send(n)
        elif what == "learn":
            cluster.learn(partition, n)
        elif what == "save":
            cluster.save(partition)
        elif what == "show":
            cluster.show(partition)
        elif what == "crash":
            cluster.crash(partition)
        else:
            cluster.start()
    cluster.finish()
    assert cluster.ranks == sorted(cluster.ranks)
    assert cluster.alerts == []
    check(cluster)


def test_a_merger_that_starts_again_publishes_nothing_below_what_is_published() -> None:
    cluster = Cluster(spec_of())
    home = partition_of(KEY, PARTITIONS)
    cluster.send(60)
    cluster.finish()
    cluster.saved[home].pop(KEY)
    statistics, cluster.statistics = cluster.statistics, {}
    before = len(cluster.snapshots)
    cluster.crash(home)
    assert cluster.ranks[before:] == []
    cluster.statistics = dict(list(statistics.items())[:2])
    cluster.show(home)
    assert cluster.ranks[before:] == []
    cluster.statistics = statistics
    cluster.show(home)
    assert cluster.ranks[before:] == [(1, 60)]
    assert cluster.snapshots[-1] == cluster.snapshots[before - 1]


def test_a_shard_without_state_learns_again_silently_and_one_without_log_goes_on_from_its_statistics() -> None:
    cluster = Cluster(spec_of())
    cluster.send(60)
    cluster.finish()
    item = shard_key(KEY, 1)
    home = partition_of(item, PARTITIONS)
    own = cluster.statistics[item, cluster.spec.lineage]
    saved = cluster.state(item)
    for begin in (0, 1):
        cluster.saved[home] = {}
        cluster.marker[home] = begin
        published = dict(cluster.statistics)
        cluster.crash(home)
        cluster.learn(home, 3)
        assert cluster.statistics == published  # nothing below what is published
        cluster.finish()
        assert cluster.statistics[item, cluster.spec.lineage] == own
        assert cluster.state(item) == saved
    check(cluster)


def test_another_number_of_shards_begins_an_epoch_and_keeps_the_old_states() -> None:
    cluster = Cluster(spec_of(1))
    cluster.send(40)
    cluster.finish()
    first = cluster.state(KEY)
    for epoch, shards in ((2, 4), (3, 2), (4, 4), (5, 1)):
        cluster.send(10, policy_epoch=epoch - 1)  # still on the way when the number changes
        cluster.start(spec_of(shards))
        assert cluster.ranks[-1] == (epoch, 0)
        cluster.send(20, policy_epoch=epoch)
        cluster.finish()
        assert cluster.ranks[-1] == (epoch, 20)
        origin = Origin.of(cluster.state(KEY))
        assert (origin.epoch, origin.version, origin.lineage) == (epoch, 20, spec_of(shards).lineage)
        for k in range(shards if shards > 1 else 0):
            assert Origin.of(cluster.state(shard_key(KEY, k))).epoch == epoch
    assert cluster.alerts == []
    assert cluster.outcomes["applied"] == 40 + 4 * 20
    assert cluster.outcomes["skipped_other_shard"] > 0
    home = cluster.saved[partition_of(KEY, PARTITIONS)]
    assert [Origin.of(home[old_key(KEY, epoch)]).version for epoch in (2, 3, 4)] == [20, 20, 20]
    assert old_key(KEY, 1) not in home  # the fourth before
    assert Origin.of(first).epoch == 1
    item = shard_key(KEY, 0)
    old = cluster.saved[partition_of(item, PARTITIONS)][old_key(item, 2)]
    assert (Origin.of(old).epoch, Origin.of(old).lineage) == (2, spec_of(4).lineage)
    item = shard_key(KEY, 3)  # there was none in epoch 3
    old = cluster.saved[partition_of(item, PARTITIONS)][old_key(item, 2)]
    assert (Origin.of(old).epoch, Origin.of(cluster.state(item)).epoch) == (2, 4)


def test_a_changed_reward_spec_begins_one_epoch_for_all_shards() -> None:
    cluster = Cluster(spec_of())
    cluster.send(40)
    cluster.finish()
    cluster.start(spec_of(metric="stars"))
    cluster.send(30, policy_epoch=2)
    cluster.finish()
    assert cluster.ranks[-1] == (2, 30)
    assert {Origin.of(cluster.state(shard_key(KEY, k))).epoch for k in range(4)} == {2}
    before = [dict(saved) for saved in cluster.saved]
    for partition in range(PARTITIONS):  # the whole state topic is lost: all is learned again, in the epoch it is in
        cluster.saved[partition], cluster.marker[partition] = {}, 0
    cluster.start()
    cluster.finish()
    for saved, again in zip(before, cluster.saved, strict=True):
        assert {item: state for item, state in saved.items() if "@" not in item and item != "ledger"} == {
            item: state for item, state in again.items() if item != "ledger"
        }


def test_version_zero_of_an_epoch_says_nothing_of_what_its_shards_have_not_said() -> None:
    cluster = Cluster(spec_of())
    cluster.send(40)
    cluster.finish()
    home = partition_of(KEY, PARTITIONS)
    for lost in (False, True):
        if lost:
            cluster.saved[home].pop(KEY)
        cluster.start(spec_of(metric=f"stars{lost}"))
        zero = [s for s in cluster.snapshots if s["epoch"] == cluster.ranks[-1][0]]
        assert [(s["version"], s["applied_sources"]) for s in zero] == [(0, [])]
        cluster.send(10, policy_epoch=cluster.ranks[-1][0])
        cluster.finish()


def test_a_shard_whose_log_was_made_anew_stays_in_the_epoch_of_the_others() -> None:
    cluster = Cluster(spec_of())
    item = shard_key(KEY, 1)
    home = partition_of(item, PARTITIONS)
    cluster.send(30)
    cluster.finish()
    held = cluster.statistics[item, cluster.spec.lineage].origin.version
    cluster.saved[home], cluster.marker[home] = {}, 0
    cluster.log[home] = [
        reward(cluster.spec, n, reward_spec=cluster.spec.reward_hash, source_partition=9) for n in range(40)
    ]
    cluster.start()
    cluster.learn(home, held)
    cluster.finish()
    assert cluster.statistics[item, cluster.spec.lineage].rank == (1, 40)
    assert {epoch for epoch, _ in cluster.ranks} == {1}


def test_a_reward_of_a_shard_that_is_elsewhere_is_on_record_as_passed_over() -> None:
    spec = spec_of()
    home = partition_of(shard_key(KEY, 1), PARTITIONS)
    elsewhere = next(k for k in range(4) if partition_of(shard_key(KEY, k), PARTITIONS) != home)
    stage = LearningStage(Policies.of(spec), home, PARTITIONS)
    batch = [(n, 0, reward(spec, n, source_partition=p)) for n, p in enumerate((1, elsewhere))]
    stage.process(batch, now_us=1, monotonic_us=0)
    assert {(e["outcome"], e["reason"], e["n"]) for e in stage.audit()} == {
        ("applied", "", 1),
        ("skipped", "other_shard", 1),
    }


def test_a_policy_that_another_deployment_has_taken_over_falls_silent_in_all_its_parts() -> None:
    cluster = Cluster(spec_of())
    cluster.send(40)
    cluster.finish()
    published, statistics = len(cluster.snapshots), dict(cluster.statistics)
    cluster.heads[KEY] = Head(2, 0, "else", {})
    cluster.look()
    cluster.send(30)
    cluster.finish()
    assert len(cluster.snapshots) == published
    assert cluster.statistics == statistics
    [alert] = cluster.alerts
    assert (alert["detector"], alert["policy"]) == ("learner_superseded", "a/one")
    assert cluster.outcomes["superseded"] == 5
    assert cluster.outcomes["skipped_superseded"] >= 30


def test_statistics_of_another_lineage_or_epoch_are_not_in_the_sum() -> None:
    cluster = Cluster(spec_of())
    item = shard_key(KEY, 0)
    other = PolicyLearner(spec_of(metric="stars"), epoch=1)
    cluster.statistics[item, other.spec.lineage] = Statistics.of(other.to_state())
    cluster.send(20)
    cluster.finish()
    assert cluster.ranks[-1] == (1, 20)
    shown: ByShard = cluster.statistics
    assert shown[item, other.spec.lineage].rank == (1, 0)


def test_a_lost_policy_topic_is_published_again_in_the_epoch_of_the_shards() -> None:
    cluster = Cluster(spec_of(1))
    cluster.send(10)
    cluster.finish()
    cluster.start(spec_of())
    cluster.send(20, policy_epoch=2)
    cluster.finish()
    cluster.heads.clear()
    cluster.saved[partition_of(KEY, PARTITIONS)].pop(KEY)
    cluster.start()
    cluster.look()
    assert cluster.ranks[-1] == (2, 20)
