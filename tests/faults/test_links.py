"""The fault tools do what their names say: the proxy is on the path, the cluster has replicas, the gateway fails on order."""

from __future__ import annotations

import http.client
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from console.brokers import KafkaCluster
from console.children import Child, python
from console.gateway.users import WRITER, passwords
from sinks.clickhouse import connect
from steersman.codec import Codec
from steersman.errors import ConfigError
from steersman.topics import Topics
from streams.topics import create_topics
from tests.faults.gateway import Gateway
from tests.faults.progress import GroupWatch
from tests.faults.proxy import Proxy
from tests.streams.test_platform_worker import POLICIES
from tests.streams.trace_events import event, hex_id


def wait(until: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not until():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def or_skip(error: ConfigError) -> None:
    if os.environ.get("CI"):
        raise error
    pytest.skip(str(error))


class Link:
    """A broker that its clients reach by way of a proxy only."""

    def __init__(self, folder: Path) -> None:
        self.proxy = Proxy()
        self.broker = KafkaCluster(
            folder, 1, advertise=self._between, properties={"group.min.session.timeout.ms": "2000"}
        )

    def _between(self, number: int, port: int) -> int:
        self.proxy.target = port
        return self.proxy.port

    def close(self) -> None:
        self.broker.stop()
        self.proxy.close()


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    try:
        link = Link(tmp_path_factory.mktemp("link"))
    except ConfigError as error:
        or_skip(error)
    yield link
    link.close()


@pytest.fixture(autouse=True)
def _restored(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "link" in request.fixturenames:
        request.getfixturevalue("link").proxy.restore()


def send(brokers: str, topic: str, timeout_ms: int) -> tuple[KafkaError | None, float]:
    """Outcome of sending one record, and how long it took."""
    found: list[KafkaError | None] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        found.append(error)

    producer = Producer({"bootstrap.servers": brokers, "delivery.timeout.ms": timeout_ms, "log_level": 0})
    started = time.monotonic()
    producer.produce(topic, b"x", on_delivery=delivered)
    producer.flush(timeout_ms / 1000 + 5)
    return found[0], time.monotonic() - started


def test_the_proxy_is_on_the_path_of_a_client_and_cuts_it(link: Link) -> None:
    admin = AdminClient({"bootstrap.servers": link.broker.direct})
    admin.create_topics([NewTopic("cut", num_partitions=1, replication_factor=1)])["cut"].result(20)
    before = (link.proxy.to_server, link.proxy.to_client)
    assert send(link.broker.bootstrap, "cut", 20_000)[0] is None
    assert link.proxy.to_server > before[0]
    assert link.proxy.to_client > before[1]
    through = link.proxy.to_server
    assert send(link.broker.direct, "cut", 20_000)[0] is None
    assert link.proxy.to_server == through

    link.proxy.slow(latency_ms=300)
    error, took = send(link.broker.bootstrap, "cut", 20_000)
    assert error is None
    assert took > 0.6

    link.proxy.blackhole()
    error, _ = send(link.broker.bootstrap, "cut", 1500)
    assert error is not None
    assert error.code() == KafkaError._MSG_TIMED_OUT
    link.proxy.reset()
    refused = link.proxy.refused
    error, _ = send(link.broker.bootstrap, "cut", 1500)
    assert error is not None
    assert link.proxy.refused > refused
    link.proxy.restore()
    assert send(link.broker.bootstrap, "cut", 20_000)[0] is None


def test_a_narrow_link_passes_no_more_than_its_width(link: Link) -> None:
    admin = AdminClient({"bootstrap.servers": link.broker.direct})
    admin.create_topics([NewTopic("narrow", num_partitions=1, replication_factor=1)])["narrow"].result(20)
    producer = Producer({"bootstrap.servers": link.broker.bootstrap, "linger.ms": 0, "log_level": 0})
    producer.produce("narrow", b"first")
    assert producer.flush(20) == 0
    link.proxy.slow(bytes_per_s=200_000)
    started = time.monotonic()
    for _ in range(10):
        producer.produce("narrow", os.urandom(20_000))
    assert producer.flush(30) == 0
    assert time.monotonic() - started > 0.9


def test_the_proxy_is_on_the_path_of_a_worker_and_cuts_it(link: Link, tmp_path: Path) -> None:
    topics = Topics(f"link{os.getpid()}")
    create_topics(link.broker.direct, topics, 2)
    policies = tmp_path / "policies.toml"
    policies.write_text(POLICIES)
    worker = Child(
        "worker",
        python(
            "streams", "worker", "--brokers", link.broker.bootstrap, "--policies", str(policies),
            "--topic-prefix", topics.prefix,
        ),
        tmp_path,
        {"STEERSMAN_SESSION_TIMEOUT_S": "3", "STEERSMAN_CHECKPOINT_INTERVAL_S": "0.2"},
    )  # fmt: skip
    codec = Codec("trace_event")
    producer = Producer({"bootstrap.servers": link.broker.direct, "partitioner": "murmur2_random", "log_level": 0})
    group = GroupWatch(link.broker.direct, f"{topics.prefix}-streams", [topics.trace])
    sent = 0

    def more() -> None:
        nonlocal sent
        for _ in range(50):
            sent += 1
            trace = hex_id(f"link {sent}", 32)
            one = event("AGENT", int(time.time() * 1e6), "root", trace=trace, duration_us=1)
            producer.produce(topics.trace, codec.encode(one), trace.encode())
        assert producer.flush(20) == 0

    def committed() -> int:
        found = group.look()
        return -1 if found is None else sum(found.committed.values())

    try:
        more()
        wait(lambda: committed() >= sent, 60, worker.tail())
        link.proxy.blackhole()
        before, seen = committed(), link.proxy.to_server
        more()
        time.sleep(4)  # longer than the session and the commit interval
        assert committed() == before
        assert link.proxy.to_server == seen
        link.proxy.restore()
        wait(lambda: committed() >= sent, 60, worker.tail())
        assert worker.stop(20) == 0, worker.tail()
    finally:
        worker.kill()
        group.close()


def test_a_cluster_of_three_goes_on_without_one(tmp_path: Path) -> None:
    try:
        cluster = KafkaCluster(tmp_path)
    except ConfigError as error:
        or_skip(error)
    try:
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        admin.create_topics([NewTopic("t", num_partitions=3, replication_factor=-1)])["t"].result(20)

        def in_sync() -> list[int]:
            return [len(p.isrs) for p in admin.list_topics("t", timeout=20).topics["t"].partitions.values()]

        wait(lambda: in_sync() == [3, 3, 3], 30, "the metadata of the new topic has spread")
        cluster.brokers[0].child.kill()
        for _ in range(3):
            assert send(cluster.bootstrap, "t", 60_000)[0] is None
        cluster.restart(0)
        wait(lambda: in_sync() == [3, 3, 3], 60, "the broker that came back is in sync")
    finally:
        cluster.stop()


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path, faulty=True)
    yield gateway
    assert gateway.stop() == 0


def test_the_gateway_fails_on_order(faulty: Gateway) -> None:
    client = connect(faulty.url)
    client.command("CREATE TABLE t (n Int64) ENGINE = MergeTree ORDER BY n")

    def insert(n: int) -> None:
        client.insert("t", [[n]], column_names=["n"], column_type_names=["Int64"])

    def stored() -> list[int]:
        return [row[0] for row in client.query("SELECT n FROM t ORDER BY n").result_rows]

    for code, name in ((252, "TOO_MANY_PARTS"), (241, "MEMORY_LIMIT"), (164, "READONLY"), (242, "TABLE_IS_READ_ONLY")):
        faulty.inject("error", code=code)
        with pytest.raises(ClickHouseError, match=name) as failed:
            insert(0)
        assert getattr(failed.value, "code", None) == code
    assert stored() == []
    faulty.inject("reply_lost", match="insert into")
    # Not through the client: it sends a request again by itself when a connection that it kept ends without a reply.
    login = {"X-ClickHouse-User": WRITER, "X-ClickHouse-Key": passwords(faulty.users)[WRITER]}
    request = urllib.request.Request(faulty.address, b"INSERT INTO t VALUES (1)", login, method="POST")
    with pytest.raises(http.client.RemoteDisconnected):
        urllib.request.urlopen(request, timeout=10)
    assert stored() == [1]
    assert faulty.hits() == {"error": 4, "reply_lost": 1}
    faulty.inject("killed")
    with pytest.raises(ClickHouseError):
        insert(2)
    assert faulty.child.wait(10) == 137
    faulty.restart()
    insert(3)
    assert stored() == [1, 2, 3]
    client.close()
