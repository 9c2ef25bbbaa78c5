"""Fixtures that start the real parts: an embedded broker, Apache Kafka."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from console.brokers import Broker, start_kafka, start_tansu
from steersman.errors import ConfigError

# How long it takes to make an example says how busy the machine is, not how good the test.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

# Tests start some 500 processes: what these import is compiled once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Brokers of tests live for a minute or two, in which Java's second compiler takes a third of their time and gives back less.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")

LONGEST = (
    "console/test_verify_command.py",  # 507
    "manual/test_pages.py",  # 317
    "test_end_to_end.py",  # 296
    "simulation/test_simulation.py",  # 198
    "streams/test_worker_process.py",  # 198
    "upgrade/test_rolling.py",  # 118
    "trust/test_payloads.py",  # 101
    "sinks/test_fold.py",  # 100
    "trust/test_poisoned.py",  # 93
    "streams/test_sharded_policy.py",  # 91
    "sinks/test_kills.py",  # 90
    "deploy/test_compose.py",  # 83
    "sinks/test_sink.py",  # 72
    "console/test_rebuild.py",  # 64
    "streams/test_neural_worker.py",  # 57
    "benchmarks/test_soak.py",  # 55
    "manual/test_tutorial.py",  # 54
    "trust/test_bombs.py",  # 52
    "trust/test_acl.py",  # 49
    "sinks/test_lost_replies.py",  # 49
    "trust/test_canaries.py",  # 43
    "console/test_quarantine.py",  # 41
    "streams/test_acts_worker.py",  # 40
    "doors/test_service.py",  # 39
)
"""Files that take longest, longest first, each with the seconds that its tests of 17 s and more took in a whole run of 2 processes."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where files go to several processes (``-n 2 --dist loadfile --no-loadscope-reorder``), long ones go first and short ones fill up.

    Left to itself, xdist hands out files with few tests last, which are our longest; at the end one process works and the others have nothing to do.
    """
    if not hasattr(config, "workerinput"):
        return
    here = Path(__file__).parent
    ranks = {here / name: rank for rank, name in enumerate(LONGEST)}
    assert all(path.is_file() for path in ranks), "LONGEST names a file that is not there"
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


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
