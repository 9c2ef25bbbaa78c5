"""Broker, store, sink, doors and live page as processes, without workers: what payloads travel through."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from console.brokers import start_kafka, start_tansu
from console.children import Children, python
from sinks.clickhouse import connect
from sinks.migrations import migrate
from steersman.codec import Codec
from steersman.kafka_config import producer_config
from steersman.topics import Topics
from streams.topics import create_topics
from tests.faults.gateway import Gateway
from tests.sinks.records import record

TOPICS = Topics("trust")
CONTRACTS = {
    "trace_event": TOPICS.trace,
    "reward": TOPICS.reward,
    "alert": TOPICS.alert,
    "policy_snapshot": TOPICS.policy,
}
"""Contract -> its topic."""


@dataclass
class Running:
    """Addresses of what runs.

    Attributes
    ----------
    brokers
        Kafka.
    gateway
        The store.
    page, doors
        Addresses; empty for what was not asked for.
    children
        Processes.
    """

    brokers: str
    gateway: Gateway
    page: str
    doors: str
    children: Children

    def produce(self, records: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Write records, each of a contract, to their topics, and wait until the broker has them."""
        producer, codecs = Producer(producer_config(self.brokers)), {name: Codec(name) for name in CONTRACTS}
        for contract, fields in records:
            made = codecs[contract].encode(record(contract, **fields))
            producer.produce(CONTRACTS[contract], value=made, key=str(fields.get("trace_id", "k")))
            producer.poll(0)
        assert producer.flush(30) == 0

    def await_rows(self, sql: str, count: int, timeout_s: float = 60) -> bool:
        """Wait until a query counts so many rows."""
        deadline = time.monotonic() + timeout_s
        with contextlib.closing(connect(self.gateway.reading)) as client:
            while time.monotonic() < deadline:
                if int(client.query(sql).result_rows[0][0]) >= count:
                    return True
                assert not self.children.dead(), self.children.dead()[0].tail()
                time.sleep(0.1)
        return False


@contextlib.contextmanager
def running(
    folder: Path,
    say: Callable[[str], None],
    *,
    kafka: bool,
    page: dict[str, str] | None = None,
    doors: dict[str, str] | None = None,
) -> Iterator[Running]:
    """Start everything.

    Parameters
    ----------
    folder
        For data and logs.
    say
        Told what starts.
    kafka
        Apache Kafka instead of the embedded broker.
    page, doors
        Environment of those; None for none.
    """
    with contextlib.ExitStack() as held:
        say("starting Apache Kafka" if kafka else "starting the embedded broker")
        broker = start_kafka(folder / "kafka", 0) if kafka else start_tansu(folder)
        held.callback(broker.stop)
        create_topics(broker.bootstrap, TOPICS, 1)
        say("starting the store, the sink, the page")
        (folder / "store").mkdir()
        gateway = Gateway(folder / "store")
        held.callback(gateway.stop)
        with contextlib.closing(connect(gateway.url)) as client:
            migrate(client)
        children = held.enter_context(Children(folder / "logs"))
        env = {"STEERSMAN_BROKERS": broker.bootstrap, "STEERSMAN_TOPIC_PREFIX": TOPICS.prefix}
        children.start(
            "sink",
            python("sinks", "run"),
            {**env, "STEERSMAN_CLICKHOUSE_URL": gateway.url, "STEERSMAN_SINK_FLUSH_S": "0.2"},
        )
        urls = {"page": "", "doors": ""}
        for name, more, store in (("page", page, gateway.reading), ("doors", doors, "")):
            if more is None:
                continue
            port_file = folder / f"{name}.port"
            command = python(name, "--port", "0", "--port-file", str(port_file))
            child = children.start(name, command, {**env, "STEERSMAN_CLICKHOUSE_URL": store, **more})
            child.wait_until(port_file.exists, 60, "opening")
            urls[name] = f"http://127.0.0.1:{port_file.read_text()}"
        yield Running(broker.bootstrap, gateway, urls["page"], urls["doors"], children)
