"""Policies kept current: from the topic, from disk, through bad records, outages and forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from console.brokers import Broker, start_tansu
from console.children import free_port
from steersman.codec import Codec
from steersman.events import Mode
from steersman.held import Held
from steersman.kafka_config import producer_config
from steersman.policy_cache import PolicyCache
from steersman.router import Router
from steersman.snapshot import PolicySnapshot
from steersman.subscriber import PolicySubscriber
from steersman.topics import Topics
from steersman.tracer import Tracer

ROOT = Path(__file__).resolve().parents[2]
POLICY = "research/retrieval"
NOWHERE = "127.0.0.1:1"
CODEC = Codec("policy_snapshot")
Make = Callable[..., PolicySnapshot]


def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for another thread to get there."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def make_topic(bootstrap: str, topics: Topics, partitions: int = 2) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = NewTopic(topics.policy, partitions, 1, config={"cleanup.policy": "compact"})
    admin.create_topics([new])[topics.policy].result(20)


class Publisher:
    """Writes to a policy topic what a learner would, and what nobody should."""

    def __init__(self, bootstrap: str, topics: Topics) -> None:
        self.topics = topics
        self._producer = Producer(producer_config(bootstrap, {"linger.ms": 0}))

    def put(self, *snapshots: PolicySnapshot) -> None:
        for snapshot in snapshots:
            self.raw(snapshot.key, CODEC.encode(snapshot.to_record()))

    def raw(self, key: str | None, value: bytes | None) -> None:
        self._producer.produce(self.topics.policy, value, key)
        assert self._producer.flush(20) == 0


@pytest.fixture
def topics(broker: Broker) -> Topics:
    names = Topics(f"policies-{uuid.uuid4().hex[:8]}")
    make_topic(broker.bootstrap, names)
    return names


@pytest.fixture
def publisher(broker: Broker, topics: Topics) -> Publisher:
    return Publisher(broker.bootstrap, topics)


@pytest.fixture
def subscribe(broker: Broker, topics: Topics) -> Iterator[Callable[..., PolicySubscriber]]:
    made: list[PolicySubscriber] = []

    def make(brokers: str | None = None, **options: Any) -> PolicySubscriber:
        made.append(PolicySubscriber(brokers or broker.bootstrap, **{"topics": topics, **options}))
        return made[-1].start()

    yield make
    for subscriber in made:
        subscriber.close()


def version(subscriber: PolicySubscriber, policy: str = POLICY) -> int | None:
    held = subscriber.get(policy)
    return None if held is None else held.snapshot.version


def test_what_was_published_before_is_there_when_ready(
    publisher: Publisher, subscribe: Any, make_snapshot: Make
) -> None:
    publisher.put(*(make_snapshot(version=v) for v in range(1, 51)), make_snapshot(policy="other"))
    subscriber = subscribe()
    assert subscriber.wait_ready(20)
    assert version(subscriber) == 50
    assert subscriber.policies() == ["other", POLICY]
    stats = subscriber.stats()
    assert stats["counts"]["records"] == 51
    assert stats["counts"]["applied"] == 2, "only the newest of each is made ready"
    assert stats["policies"][POLICY]["version"] == 50
    assert stats["policies"][POLICY]["age_s"] < 20


def test_only_the_policies_asked_for_are_held(publisher: Publisher, subscribe: Any, make_snapshot: Make) -> None:
    publisher.put(make_snapshot(version=1), make_snapshot(policy="other"))
    subscriber = subscribe(policies=["other"])
    assert subscriber.wait_ready(20)
    assert subscriber.policies() == ["other"]
    assert subscriber.stats()["counts"]["other_policy"] == 1


def test_an_empty_topic_is_ready_at_once(subscribe: Any) -> None:
    subscriber = subscribe()
    assert subscriber.wait_ready(20)
    assert subscriber.get(POLICY) is None
    assert subscriber.age_s(POLICY) is None


def test_a_new_version_arrives_and_is_announced(publisher: Publisher, subscribe: Any, make_snapshot: Make) -> None:
    subscriber = subscribe()
    seen: list[int] = []

    def fails(held: Held) -> None:
        raise RuntimeError("the application's own")

    subscriber.on_change(fails)
    subscriber.on_change(lambda held: seen.append(held.snapshot.version))
    assert subscriber.wait_ready(20)
    delays = []
    for v in range(1, 21):
        started = time.monotonic()
        publisher.put(make_snapshot(version=v))
        until(lambda v=v: version(subscriber) == v, "the version")  # type: ignore[misc]
        delays.append(time.monotonic() - started)
    assert seen == list(range(1, 21))
    assert subscriber.stats()["counts"]["callback_errors"] == 20
    assert sorted(delays)[10] < 0.25


def test_the_highest_epoch_and_version_holds(publisher: Publisher, subscribe: Any, make_snapshot: Make) -> None:
    subscriber = subscribe()
    assert subscriber.wait_ready(20)
    publisher.put(make_snapshot(version=9), make_snapshot(version=8), make_snapshot(version=9))
    publisher.put(make_snapshot(epoch=2, version=1), make_snapshot(epoch=1, version=99))
    publisher.put(make_snapshot(epoch=2, version=1, stage="FROZEN", created_at=make_snapshot().created_at + 1))
    # The last record is the only one that freezes.
    until(lambda: (held := subscriber.get(POLICY)) is not None and held.snapshot.stage == "FROZEN", "the last record")
    held = subscriber.get(POLICY)
    assert held is not None
    assert (held.snapshot.epoch, held.snapshot.version, held.snapshot.stage) == (2, 1, "FROZEN")
    assert subscriber.stats()["counts"]["older"] == 2
    assert subscriber.stats()["counts"]["repeated"] == 1


def test_retiring_stops_the_policy_and_a_bare_tombstone_does_not(
    publisher: Publisher, subscribe: Any, make_snapshot: Make, tracer: Tracer
) -> None:
    subscriber = subscribe()
    router = Router(subscriber, tracer)
    publisher.put(make_snapshot(version=1))
    publisher.raw(make_snapshot().key, None)
    until(lambda: subscriber.stats()["counts"].get("tombstones") == 1, "the tombstone")
    assert router.choose(POLICY, {}).mode is Mode.LIVE
    publisher.put(make_snapshot(version=1, stage="RETIRED", created_at=make_snapshot().created_at + 1))
    until(lambda: router.choose(POLICY, {}).mode is Mode.FALLBACK, "the retirement")
    assert router.choose(POLICY, {}).reason == "retired"


def test_bad_records_are_counted_and_the_last_good_one_stays(
    publisher: Publisher, subscribe: Any, make_snapshot: Make
) -> None:
    subscriber = subscribe()
    assert subscriber.wait_ready(20)
    good = make_snapshot(version=3)
    publisher.put(good)
    value = CODEC.encode(make_snapshot(version=4).to_record())
    publisher.raw(good.key, b"not avro")
    publisher.raw(good.key, value[:-5])
    publisher.raw(good.key, value + b"x")
    publisher.raw(good.key, CODEC.encode({**make_snapshot(version=5).to_record(), "baseline": "model=x"}))
    publisher.raw("default/other", value)
    publisher.raw(None, value)
    publisher.raw("elsewhere/policy", value)
    until(lambda: subscriber.stats()["counts"].get("records") == 8, "all records")
    assert version(subscriber) == 3
    counts = subscriber.stats()["counts"]
    assert {name: n for name, n in counts.items() if name.startswith("bad:")} == {
        "bad:corrupt": 1,
        "bad:key_mismatch": 1,
        "bad:magic": 1,
        "bad:no_key": 1,
        "bad:snapshot": 1,
        "bad:trailing_bytes": 1,
    }
    assert counts["other_tenant"] == 1


def test_a_bad_newest_record_does_not_hide_the_good_one_before(
    publisher: Publisher, subscribe: Any, make_snapshot: Make
) -> None:
    publisher.put(make_snapshot(version=3))
    record = {**make_snapshot(version=4).to_record(), "baseline": "model=x"}
    publisher.raw(make_snapshot().key, CODEC.encode(record))
    subscriber = subscribe()
    assert subscriber.wait_ready(20)
    assert version(subscriber) == 3
    assert subscriber.stats()["counts"]["bad:snapshot"] == 1


def test_tenants_are_apart(publisher: Publisher, subscribe: Any, make_snapshot: Make) -> None:
    publisher.put(make_snapshot(version=1), make_snapshot(tenant="acme", version=2))
    ours, theirs = subscribe(), subscribe(tenant="acme")
    assert ours.wait_ready(20)
    assert theirs.wait_ready(20)
    assert (version(ours), version(theirs)) == (1, 2)


# ---- without Kafka ---------------------------------------------------------------------------------------------------


def test_without_kafka_the_copy_on_disk_is_used(
    publisher: Publisher, subscribe: Any, make_snapshot: Make, tmp_path: Path, tracer: Tracer
) -> None:
    publisher.put(make_snapshot(version=7))
    first = subscribe(cache_dir=tmp_path)
    assert first.wait_ready(20)
    first.close()
    assert first.stats()["counts"]["saved"] == 1
    (path,) = tmp_path.iterdir()
    assert CODEC.decode(path.read_bytes())["version"] == 7

    later = subscribe(NOWHERE, cache_dir=tmp_path)
    assert version(later) == 7
    assert not later.wait_ready(0.05)
    assert Router(later, tracer).choose(POLICY, {}).mode is Mode.LIVE
    until(lambda: any(name.startswith("kafka:") for name in later.stats()["counts"]), "the outage is counted")


def test_a_copy_on_disk_ages_by_when_it_was_last_current(
    subscribe: Any, make_snapshot: Make, tmp_path: Path, tracer: Tracer
) -> None:
    cache = PolicyCache(tmp_path, "default")
    cache.save(POLICY, CODEC.encode(make_snapshot().to_record()))
    cache.touch(POLICY, (time.time_ns() // 1000) - 3_600_000_000)
    subscriber = subscribe(NOWHERE, cache_dir=tmp_path)
    assert subscriber.age_s(POLICY) == pytest.approx(3600, abs=60)
    assert Router(subscriber, tracer, max_age_s=1800).choose(POLICY, {}).reason == "stale"


def test_broken_copies_on_disk_are_counted_and_skipped(subscribe: Any, make_snapshot: Make, tmp_path: Path) -> None:
    good = CODEC.encode(make_snapshot().to_record())
    cache = PolicyCache(tmp_path, "default")
    cache.save("a", b"")
    cache.save("b", good[:-1])
    cache.save("c", CODEC.encode(make_snapshot(tenant="acme").to_record()))
    cache.save("d", b"\xff" + os.urandom(1000))
    cache.save(POLICY, good)
    subscriber = subscribe(NOWHERE, cache_dir=tmp_path)
    assert subscriber.policies() == [POLICY]
    bad = {name for name in subscriber.stats()["counts"] if name.startswith("bad:")}
    assert bad == {"bad:disk:empty", "bad:disk:corrupt", "bad:disk:key_mismatch", "bad:disk:magic"}


def test_a_disk_that_refuses_does_not_stop_the_following(
    publisher: Publisher, subscribe: Any, make_snapshot: Make, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    publisher.put(make_snapshot(version=1))
    subscriber = subscribe(cache_dir=tmp_path / "file")
    assert subscriber.wait_ready(20)
    until(lambda: subscriber.stats()["counts"].get("disk_errors", 0) >= 1, "the refusal")
    publisher.put(make_snapshot(version=2))
    until(lambda: version(subscriber) == 2, "the next version")


def test_a_policy_that_does_not_change_does_not_age(publisher: Publisher, subscribe: Any, make_snapshot: Make) -> None:
    publisher.put(make_snapshot())
    subscriber = subscribe(confirm_every_s=0.2)
    assert subscriber.wait_ready(20)
    until(lambda: subscriber.stats()["counts"].get("confirmed", 0) >= 3, "confirmations")
    age_s = subscriber.age_s(POLICY)
    assert age_s is not None
    assert age_s < 5


def test_a_topic_that_comes_later_is_followed(broker: Broker, subscribe: Any, make_snapshot: Make) -> None:
    topics = Topics(f"late-{uuid.uuid4().hex[:8]}")
    subscriber = subscribe(topics=topics)
    until(lambda: subscriber.stats()["counts"].get("no_topic", 0) >= 1, "no topic yet")
    assert not subscriber.ready
    make_topic(broker.bootstrap, topics)
    Publisher(broker.bootstrap, topics).put(make_snapshot(version=4))
    assert subscriber.wait_ready(20)
    until(lambda: version(subscriber) == 4, "the policy")


def test_a_broker_restarted_without_its_memory_is_followed_again(
    tmp_path: Path, subscribe: Any, make_snapshot: Make
) -> None:
    port, topics = free_port(), Topics("restart")
    running = start_tansu(tmp_path / "one", port)
    make_topic(running.bootstrap, topics)
    Publisher(running.bootstrap, topics).put(*(make_snapshot(version=v) for v in range(1, 11)))
    subscriber = subscribe(running.bootstrap, topics=topics, confirm_every_s=0.5)
    assert subscriber.wait_ready(20)
    assert version(subscriber) == 10
    running.stop()
    assert version(subscriber) == 10, "what is held stays"
    running = start_tansu(tmp_path / "two", port)
    try:
        make_topic(running.bootstrap, topics)
        Publisher(running.bootstrap, topics).put(make_snapshot(version=11), make_snapshot(policy="new"))
        until(lambda: (version(subscriber), version(subscriber, "new")) == (11, 5), "the new broker's policies", 40)
    finally:
        subscriber.close()
        running.stop()


FORKING = """
import json, os, sys, time
from steersman import PolicySubscriber, Topics
s = PolicySubscriber(sys.argv[1], topics=Topics(sys.argv[2])).start()
assert s.wait_ready(20)
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    before = s.get("research/retrieval").snapshot.version
    ready = s.wait_ready(20)
    os.write(write, b"go\\n")
    deadline = time.monotonic() + 20
    while s.get("research/retrieval").snapshot.version == before and time.monotonic() < deadline:
        time.sleep(0.01)
    print(json.dumps([before, ready, s.get("research/retrieval").snapshot.version]), flush=True)
    sys.exit(0)
os.read(read, 3)
print("forked", flush=True)
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status), flush=True)
"""


def test_a_forked_child_follows_by_itself(
    broker: Broker, topics: Topics, publisher: Publisher, make_snapshot: Make
) -> None:
    publisher.put(make_snapshot(version=1))
    with subprocess.Popen(
        [sys.executable, "-c", FORKING, broker.bootstrap, topics.prefix], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "forked\n"
        publisher.put(make_snapshot(version=2))
        assert json.loads(parent.stdout.readline()) == [1, True, 2]
        assert parent.stdout.readline() == "0\n", "the child ends in order, with the parent's consumer in its memory"
        assert parent.wait(20) == 0
