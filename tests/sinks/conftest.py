"""A ClickHouse for the sink's tests: the gateway over chDB, as a process that can be killed and started again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from console.brokers import Broker
from console.children import Child, python
from sinks.clickhouse import connect
from sinks.migrations import migrate
from steersman.kafka_config import producer_config
from steersman.topics import Topics
from tests.faults.gateway import Gateway
from tests.sinks.records import record

TEMPLATE = "made_by_migrations"


@pytest.fixture(scope="session")
def gateway_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("clickhouse"))
    yield running
    assert running.child.stop() == 0


@pytest.fixture(scope="session")
def migrated(gateway_process: Gateway) -> tuple[str, ...]:
    """The statements that make the current schema at once, with `TEMPLATE` where the database's name goes.

    They are what ClickHouse says of a database that the migrations made: the same tables and views, in 51 statements instead of 116, for
    every test has a database of its own.
    """
    client = connect(f"{gateway_process.url}/{TEMPLATE}", create_database=True)
    migrate(client)
    made = client.query(
        "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY engine = 'View', name"
    ).result_rows
    client.close()
    return tuple(statement for (statement,) in made)


@pytest.fixture
def gateway(gateway_process: Gateway, migrated: tuple[str, ...], request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an empty database with the current schema."""
    name = "t_" + "".join(c if c.isalnum() else "_" for c in request.node.name)[:60]
    url = f"{gateway_process.url}/{name}"
    client = connect(url, create_database=True)
    for statement in migrated:
        client.command(statement.replace(TEMPLATE, name))
    client.command(f"INSERT INTO schema_migrations SELECT * FROM {TEMPLATE}.schema_migrations")
    client.close()
    yield url
    cleaner = connect(gateway_process.url)
    cleaner.command(f"DROP DATABASE {name}")
    cleaner.close()


@pytest.fixture
def client(gateway: str) -> Iterator[Client]:
    """Client of that database."""
    connected = connect(gateway)
    yield connected
    connected.close()


@pytest.fixture(name="record")
def _record() -> Callable[..., dict[str, Any]]:
    return record


@pytest.fixture
def bus(request: pytest.FixtureRequest) -> Broker:
    """The embedded broker, or the one that a test names by indirect parametrization: `broker` or `kafka`."""
    running = request.getfixturevalue(getattr(request, "param", "broker"))
    assert isinstance(running, Broker)
    return running


@pytest.fixture
def topics(bus: Broker, request: pytest.FixtureRequest) -> Topics:
    """Topics of this test alone, with two partitions each."""
    return make_topics(bus.bootstrap, request.node.name)


def make_topics(bootstrap: str, name: str) -> Topics:
    topics = Topics("s-" + "".join(c if c.isalnum() else "-" for c in name)[:60] + f"-{time.time_ns()}")
    names = (
        topics.trace,
        topics.reward,
        topics.rollup,
        topics.alert,
        topics.policy,
        topics.control,
        topics.dead_letter,
        topics.audit,
    )
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(t, num_partitions=2, replication_factor=1) for t in names]).values():
        future.result(20)
    return topics


@pytest.fixture
def start(bus, topics: Topics, gateway: str, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts a sink; every one that still runs at the end is stopped."""
    running: list[Child] = []

    def run(**more: str) -> Child:
        env = {
            "STEERSMAN_BROKERS": bus.bootstrap,
            "STEERSMAN_TOPIC_PREFIX": topics.prefix,
            "STEERSMAN_CLICKHOUSE_URL": gateway,
            "STEERSMAN_SINK_FLUSH_S": "0.2",
            "STEERSMAN_SINK_FLUSH_ROWS": "500",
            "STEERSMAN_SINK_RETRY_MAX_S": "0.5",
            **more,
        }
        running.append(Child(f"sink{len(running)}", python("sinks", "run", "--json"), tmp_path, env))
        return running[-1]

    yield run
    for child in running:
        child.stop()


@pytest.fixture
def produce(bus) -> Iterator[Callable[..., None]]:
    producer = Producer(producer_config(bus.bootstrap))

    def send(topic: str, value: bytes | None, key: str = "k", headers: Any = (), partition: int | None = None) -> None:
        where = {} if partition is None else {"partition": partition}
        producer.produce(topic, value=value, key=key, headers=list(headers), **where)
        producer.poll(0)

    send.flush = producer.flush  # type: ignore[attr-defined]
    yield send
    assert producer.flush(20) == 0


@pytest.fixture(name="until")
def _until() -> Callable[..., None]:
    def until(condition: Callable[[], bool], sink: Child, timeout_s: float = 40) -> None:
        """Wait for a condition; a ClickHouse that is away does not fulfil it."""

        def holds() -> bool:
            try:
                return condition()
            except ClickHouseError:
                return False

        sink.wait_until(holds, timeout_s, "what the test waits for")

    return until
