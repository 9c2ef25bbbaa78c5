"""Records that are small until somebody reads them, or that nobody ought to have written, on a running Apache Kafka.

Batches that become a hundred times as much, in every encoding; as many of them as one answer of the broker holds; headers whose
name is not UTF-8; records as large as Kafka takes, of noise. Into the trace topic, as a compromised agent can; into the Collector's
topic; into the policy topic, as a compromised worker can. Read by trace stage, sink, doors and a subscriber, each a process. The bar:
every process lives, its memory stays bounded, each such record is on record as a dead letter or a count, and what
was written behind it has its effect.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.cimpl import NewTopic

from console.brokers import start_kafka
from console.children import Child, Children, free_port, python
from sinks.clickhouse import connect
from sinks.migrations import migrate
from steersman.codec import Codec
from steersman.kafka_admin import KafkaAdmin
from steersman.kafka_config import MAX_BATCH_BYTES, producer_config
from steersman.topics import Topics
from streams.topics import create_topics
from tests.doors.payloads import request
from tests.faults.gateway import Gateway
from tests.raw_batches import badly_named, batch, send
from tests.trust.part import Found, Say
from tests.trust.snapshots import snapshot

MIB = 1 << 20
TOPICS = Topics("bombs")
OTLP = "bombs-otlp"
POLICIES = """
[[policy]]
tenant = "t"
name = "p"
baseline = { model = "large" }
[policy.knobs]
model = ["small", "large"]
[policy.reward]
window_s = 600
settle_ms = 100
weights = { quality = 1.0 }
"""
SUBSCRIBER = """
import json, sys, time
from steersman.subscriber import PolicySubscriber
from steersman.topics import Topics
with PolicySubscriber(sys.argv[1], topics=Topics(sys.argv[2]), tenant="acme") as subscriber:
    while True:
        held = subscriber.get(sys.argv[3])
        counts = dict(subscriber.stats()["counts"])
        print(json.dumps({"version": held and held.snapshot.version, "counts": counts}), flush=True)
        time.sleep(0.2)
"""
GROWN_MIB = {"worker": 250, "sink": 650, "doors": 650, "subscriber": 650}
"""Most that a process may grow. What librdkafka makes of an answer of 1 MiB gzip is 1 GiB; the bombs here are a third of that together."""


class Ground:
    """The processes, and what they have come to."""

    def __init__(self, folder: Path, children: Children, gateway: Gateway, brokers: str) -> None:
        self.brokers, self.gateway, self.children = brokers, gateway, children
        policies = folder / "policies.toml"
        policies.write_text(POLICIES)
        self._env = {
            **{name: "" for name in os.environ if name.startswith("STEERSMAN_KAFKA_")},
            "STEERSMAN_BROKERS": brokers,
            "STEERSMAN_TOPIC_PREFIX": TOPICS.prefix,
            "STEERSMAN_POLICIES": str(policies),
            "STEERSMAN_OTLP_TOPIC": OTLP,
            "STEERSMAN_CHECKPOINT_INTERVAL_S": "0.5",
            "STEERSMAN_SESSION_TIMEOUT_S": "6",
            "STEERSMAN_SINK_FLUSH_S": "0.3",
            "STEERSMAN_CLICKHOUSE_URL": f"{gateway.url}/bombs",
        }
        self.codec = Codec("trace_event")
        self._producer = Producer(producer_config(brokers))
        self._sent = 0

    def start(self, name: str, command: list[str]) -> Child:
        return self.children.start(name, command, self._env)

    def good(self, n: int = 20) -> int:
        """Events, spans and a policy as they should be; returns how many events there are so far."""
        for _ in range(n):
            self._sent += 1
            event = {
                "event_id": f"{self._sent:032x}",
                "trace_id": f"{self._sent:032x}",
                "span_id": f"{self._sent:016x}",
                "tenant": "t",
                "agent": "good",
                "kind": "TOOL_CALL",
                "ts": time.time_ns() // 1000,
            }
            self._producer.produce(TOPICS.trace, self.codec.encode(event), event["trace_id"])
        spans = request({"gen_ai.operation.name": "execute_tool"}, trace=f"{self._sent + (1 << 64):032x}")
        self._producer.produce(OTLP, spans.SerializeToString())
        newer = Codec("policy_snapshot").encode(snapshot(version=self._sent).to_record())
        self._producer.produce(TOPICS.policy, newer, snapshot().key)
        assert self._producer.flush(30) == 0
        return self._sent

    def stored(self, sql: str) -> int:
        with contextlib.closing(connect(f"{self.gateway.url}/bombs")) as client:
            return int(client.query(f"SELECT count() FROM {sql}").result_rows[0][0])

    def wait(self, ready: Callable[[], bool], what: str, timeout_s: float = 60) -> str:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if dead := self.children.dead():
                return f"{dead[0].name} died ({dead[0].exit_code}): {dead[0].tail(8)}"
            if time.monotonic() > deadline:
                return f"{what} did not come in {timeout_s:g} s"
            time.sleep(0.1)
        return ""


def weapons(r: random.Random) -> dict[str, bytes]:
    """Batches, by name, under the key of a policy; of one record each but for the fourth."""
    zeros, key = bytes(100 * MIB), snapshot().key.encode()
    return {
        "gzip": batch("gzip", zeros, key=key),
        "lz4": batch("lz4", zeros, key=key),
        "zstd": batch("zstd", bytes(300 * MIB), key=key),
        "zstd of three records": batch("zstd", bytes(40 * MIB), bytes(40 * MIB), b"x", key=key),
        "snappy": batch("snappy", bytes(16 * MIB), key=key),
        "noise": batch("none", r.randbytes(1_040_000), key=key),
        "large and empty": batch("gzip", bytes(5 * MIB), key=key),
        "header": badly_named(b"one", bad=0, key=key),
    }


def run(quick: bool, seed: int, say: Say) -> Found:
    """Write them, and see what becomes of everybody who reads; size changes nothing."""
    r = random.Random(seed)
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bombs-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        broker = start_kafka(folder / "kafka")
        stack.callback(broker.child.kill)
        create_topics(broker.bootstrap, TOPICS, 1)
        admin = KafkaAdmin(broker.bootstrap)
        [made] = admin.create_topics([NewTopic(OTLP, num_partitions=1, replication_factor=1)]).values()
        made.result(20)
        gateway = Gateway(folder / "clickhouse")
        stack.callback(gateway.stop)
        with contextlib.closing(connect(f"{gateway.url}/bombs", create_database=True)) as client:
            migrate(client)
        children = stack.enter_context(Children(folder / "logs"))
        ground = Ground(folder, children, gateway, broker.bootstrap)
        readers = {
            "worker": ground.start("worker", python("streams", "worker", "--stages", "trace")),
            "sink": ground.start("sink", python("sinks", "run")),
            "doors": ground.start("doors", python("doors", "--port", str(free_port()))),
            "subscriber": ground.start("subscriber", [sys.executable, "-c", SUBSCRIBER, broker.bootstrap, TOPICS.prefix, snapshot().policy]),
        }  # fmt: skip

        def caught_up(sent: int) -> bool:
            told = _last(readers["subscriber"])
            return (
                told.get("version") == sent
                and ground.stored("v_events WHERE agent = 'good'") >= sent
                and ground.stored("v_events WHERE agent != 'good'") >= sent // 20
            )

        def alive(step: str) -> None:
            sent = ground.good()
            if trouble := ground.wait(lambda: caught_up(sent), f"what was written {step}"):
                problems.append(trouble)
                for reader in readers.values():
                    say(f"bombs: {reader.name}: {reader.tail(5)}")

        alive("before")
        before = {name: _peak_mib(reader) for name, reader in readers.items()}
        arms = weapons(r)
        say(f"bombs: {', '.join(f'{name} of {len(raw)} bytes' for name, raw in arms.items())}")
        for topic in (TOPICS.trace, OTLP, TOPICS.policy):
            send(broker.bootstrap, topic, *arms.values())
        alive("behind them")
        grown = {name: round(_peak_mib(reader) - before[name]) for name, reader in readers.items()}
        problems += [f"{name} grew by {mib} MiB, {GROWN_MIB[name]} are allowed" for name, mib in grown.items() if mib > GROWN_MIB[name]]  # fmt: skip
        letters = {}
        for topic in (TOPICS.trace, OTLP):
            place = f"v_dead_letters WHERE error_topic = '{topic}'"
            want = len(arms)
            if trouble := ground.wait(
                lambda place=place, want=want: ground.stored(place) >= want, f"letters of {topic}", 20
            ):  # type: ignore[misc]
                problems.append(f"{trouble}: {ground.stored(place)} of {want}")
            letters[topic] = ground.stored(place)
        counts = _last(readers["subscriber"]).get("counts", {})
        refused = sum(n for name, n in counts.items() if name.startswith(("bad:", "bad_batch")))
        if refused < len(arms):
            problems.append(f"the subscriber has counted {refused} of {len(arms)}: {counts}")
        codes = {name: readers[name].stop() for name in ("worker", "sink", "doors")}
        problems += [f"{name} ended with exit code {code}" for name, code in codes.items() if code]
    totals = {"bombs": 3 * len(arms), "bombs_grown_mib": max(grown.values())}
    return Found(
        totals,
        problems,
        {"grown_mib": grown, "letters": letters, "subscriber": counts, "batch_cap_mib": MAX_BATCH_BYTES // MIB},
    )


def _last(child: Child) -> dict[str, object]:
    """The last line of JSON in a log."""
    for line in reversed(child.tail(3).splitlines()):
        with contextlib.suppress(ValueError):
            found: dict[str, object] = json.loads(line)
            return found
    return {}


def _peak_mib(child: Child) -> float:
    status = Path(f"/proc/{child.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024
