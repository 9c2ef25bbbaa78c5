"""A ClickHouse for the page's tests: the gateway over chDB, a database a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sinks.clickhouse import connect
from sinks.migrations import migrate
from tests.faults.gateway import Gateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("clickhouse"))
    yield running
    assert running.stop() == 0


@pytest.fixture
def database(gateway: Gateway, request: pytest.FixtureRequest) -> str:
    """URL of an empty database with the current schema."""
    url = f"{gateway.url}/p_{request.node.name.partition('[')[0]}"
    client = connect(url, create_database=True)
    migrate(client)
    client.close()
    return url
