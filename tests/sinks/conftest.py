"""A ClickHouse for the sink's tests: the gateway over chDB, as a process that can be killed and started again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka.admin import AdminClient, NewTopic

from console.brokers import Broker
from sinks.clickhouse import connect
from sinks.migrations import migrate
from steersman import contracts
from steersman.topics import Topics
from tests.faults.gateway import Gateway


@pytest.fixture(scope="session")
def gateway_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("clickhouse"))
    yield running
    assert running.child.stop() == 0


@pytest.fixture
def gateway(gateway_process: Gateway, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an empty database with the current schema."""
    name = "t_" + "".join(c if c.isalnum() else "_" for c in request.node.name)[:60]
    url = f"{gateway_process.url}/{name}"
    client = connect(url, create_database=True)
    migrate(client)
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


def record(contract: str, **fields: Any) -> dict[str, Any]:
    """A record of a contract: the fields given, defaults elsewhere, and something harmless where there are none."""
    harmless = {"string": "x", "long": 1_790_000_000_000_000, "int": 0, "double": 0.5, "boolean": False}
    made: dict[str, Any] = {}
    for field in contracts.schema(contract)["fields"]:
        kind = field["type"]
        if field["name"] in fields:
            value = fields[field["name"]]
        elif "default" in field:
            value = b"" if kind == "bytes" else field["default"]
        elif isinstance(kind, dict):
            value = {"array": [], "enum": "UNKNOWN"}.get(kind["type"], 1_790_000_000_000_000)
        else:
            value = 1 if kind == "long" else harmless[kind]
        made[field["name"]] = value
    assert made.keys() >= fields.keys()
    return made


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
    names = (topics.trace, topics.reward, topics.rollup, topics.alert, topics.policy, topics.dead_letter, topics.audit)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(t, num_partitions=2, replication_factor=1) for t in names]).values():
        future.result(20)
    return topics
