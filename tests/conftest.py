"""Fixtures that start the real parts: an embedded broker, Apache Kafka."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from console.brokers import Broker, start_kafka, start_tansu
from steersman.errors import ConfigError

# How long it takes to make an example says how busy the machine is, not how good the test.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Embedded, Kafka-compatible broker; `.bootstrap` for clients. Use topic prefixes of your own: it is shared."""
    running = start_tansu(tmp_path_factory.mktemp("tansu"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Apache Kafka 4.x; skipped without Java or Maven, except where CI is set: there a missing one is a failure."""
    try:
        running = start_kafka(tmp_path_factory.mktemp("kafka"))
    except ConfigError as e:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(e))
    yield running
    running.stop()
