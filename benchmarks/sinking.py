"""What it costs to bring trace events from Kafka values into ClickHouse: by columns, against decoding them one by one."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.avro_container import container, container_header, zigzag
from benchmarks.measure import Figure, spread
from console.children import Child, free_port, listening, python
from learners.policies import Policies
from learners.spec import PolicySpec, RewardSpec, Scales, Weights
from sinks.clickhouse import connect
from sinks.migrations import migrate
from sinks.tables import Message, Table, tables
from sinks.writer import Backoff, Writer
from steersman import contracts
from steersman.arms import ArmSpace
from steersman.features import FeatureSpec, Numeric
from steersman.topics import Topics
from tests.faults.traces import Mix, Traffic

PAYLOAD = (
    "trace events of many agents' traces (44 fields, about 200 bytes; decisions carry 16 features) in batches of 20,000, "
    "from Kafka values in memory to stored rows; CPU is that of this process, which in process is ClickHouse's as well; "
    "'rows' decodes and inserts a list of tuples, 'decoded' decodes and inserts columns, 'columns' is the sink, 'avro' "
    "gives ClickHouse a container of bodies that nobody checked"
)
ROWS = 20_000
BATCHES = 2
REPEATS = 9

Way = Callable[[Any, Sequence[Message], str], None]


def sink() -> Iterator[Figure]:
    """Every way, in process and over HTTP, alternating."""
    table = next(t for t in tables(Topics()) if t.name == "trace_events")
    values = [sent.value for sent in Traffic(1, _policies(), Mix()).records(ROWS)][:ROWS]
    ways = {
        "columns": _written(table),
        "decoded": _written(replace(table, encoding=None)),
        "rows": _tuples(table),
        "avro": _avro(table),
    }
    with tempfile.TemporaryDirectory() as folder:
        client = connect(f"chdb://{folder}/in-process")
        yield from _measured("chDB in process", client, table, values, ways)
        client.close()
        port = free_port()
        command = python("console.gateway", "--path", f"{folder}/gateway", "--port", str(port), "--no-login")
        gateway = Child("gateway", command, Path(folder))
        try:
            gateway.wait_until(lambda: listening(port), 60, "answering")
            with connect(f"http://127.0.0.1:{port}") as client:
                yield from _measured("HTTP gateway", client, table, values, ways)
        finally:
            gateway.stop()


def _measured(where: str, client: Any, table: Table, values: Sequence[bytes], ways: dict[str, Way]) -> Iterator[Figure]:
    migrate(client)
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(-1, REPEATS):
        for name, way in ways.items():
            client.command(f"TRUNCATE TABLE {table.name}")
            batches = [
                [Message(table.topic, b, i, None, v, (), 1_790_000_000_000) for i, v in enumerate(values)]
                for b in range(BATCHES)
            ]
            started, cpu_started = time.perf_counter(), time.process_time()
            for number, batch in enumerate(batches):
                way(client, batch, f"{name} {repeat} {number}")
            if repeat >= 0:
                cpu[name].append((time.process_time() - cpu_started) / (BATCHES * len(values)) * 1e6)
                wall[name].append(BATCHES * len(values) / (time.perf_counter() - started))
            stored = client.command(f"SELECT count() FROM {table.name}")
            if stored != BATCHES * len(values):
                raise AssertionError(f"{where}, {name}: {stored} rows stored")
    for name, rates in wall.items():
        yield Figure(
            f"{where}, {name}", "stored", "rows/s", *spread(rates), REPEATS, round(statistics.median(cpu[name]), 2)
        )
    ratios = [ours / theirs for ours, theirs in zip(wall["columns"], wall["decoded"], strict=True)]
    yield Figure(f"{where}, columns to decoded", "rows/s, same repeat", "times", *spread(ratios), REPEATS)


def _written(table: Table) -> Way:
    """The sink's own writer."""

    def insert(client: Any, batch: Sequence[Message], _: str) -> None:
        backoff = Backoff(random.Random(0))  # noqa: S311
        writer = Writer(table, backoff, lambda rejected: None, flush_s=1, flush_rows=ROWS, flush_bytes=1 << 30)
        for message in batch:
            writer.add(message, 0.0)
        if not writer.flush(lambda: client, 0.0):
            raise AssertionError(writer.last_error)

    return insert


def _tuples(table: Table) -> Way:
    names, kinds = zip(*table.columns, strict=True)

    def insert(client: Any, batch: Sequence[Message], token: str) -> None:
        rows = [made for message in batch if (made := table.row(message)) is not None]
        data = [tuple("" if row[n] is None and k == "String" else row[n] for n, k in table.columns) for row in rows]
        client.insert(
            table.name, data, column_names=names, column_type_names=kinds,
            settings={"insert_deduplication_token": token, "optimize_on_insert": 0},
        )  # fmt: skip

    return insert


def _avro(table: Table) -> Way:
    fields = contracts.schema("trace_event")["fields"]
    stamp = [
        {"name": "kafka_topic", "type": "string"}, {"name": "kafka_partition", "type": "int"},
        {"name": "kafka_offset", "type": "long"}, {"name": "kafka_timestamp", "type": "long"},
    ]  # fmt: skip
    header = container_header({"type": "record", "name": "Row", "fields": stamp + fields})
    names = [field["name"] for field in stamp + fields]
    topic = zigzag(len(table.topic)) + table.topic.encode()

    def pieces(batch: Sequence[Message]) -> Iterator[bytes]:
        for m in batch:
            yield topic + zigzag(m.partition) + zigzag(m.offset) + zigzag(m.timestamp_ms)
            yield (m.value or b"")[10:]

    def insert(client: Any, batch: Sequence[Message], token: str) -> None:
        block = container(header, pieces(batch), len(batch))
        settings = {
            "insert_deduplication_token": token, "optimize_on_insert": 0, "input_format_null_as_default": 1,
        }  # fmt: skip
        client.raw_insert(table.name, column_names=names, insert_block=block, fmt="Avro", settings=settings)

    return insert


def _policies() -> Policies:
    arms = ArmSpace({"model": ["small", "large"], "top_k": [4, 8]})
    features = FeatureSpec(features=tuple(Numeric(name=f"x{i}") for i in range(15)))
    reward = RewardSpec(weights=Weights(cost=0.1, latency=0.1), scales=Scales())
    return Policies.of(PolicySpec("default", "bench/policy", arms, arms.labels[0], features, reward))
