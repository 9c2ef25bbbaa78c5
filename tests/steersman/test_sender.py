"""The sender: what it does without Kafka, with Kafka, across a fork and at the end of the process."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from console.brokers import Broker
from steersman.codec import Codec
from steersman.events import Kind
from steersman.ids import new_span_id, new_trace_id
from steersman.sender import Sender
from steersman.topics import Topics
from steersman.tracer import Tracer

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "127.0.0.1:1"
TOPIC = "t.trace.v1"


def event(**fields: Any) -> dict[str, Any]:
    return {
        "event_id": "e",
        "trace_id": new_trace_id(),
        "span_id": new_span_id(),
        "kind": "TOOL_CALL",
        "ts": 1,
        **fields,
    }


def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for another thread to get there."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


@pytest.fixture
def make_sender() -> Any:
    made: list[Sender] = []

    def make(brokers: str = NOWHERE, topic: str = TOPIC, **options: Any) -> Sender:
        made.append(Sender(brokers, topic, **options))
        return made[-1]

    yield make
    for sender in made:
        sender.close(0)


@pytest.fixture
def topics(broker: Broker) -> Topics:
    """Topics of its own for every test, made on the broker."""
    names = Topics(f"sender-{uuid.uuid4().hex[:8]}")
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for future in admin.create_topics([NewTopic(names.trace, 3, 1)]).values():
        future.result(20)
    return names


def read(bootstrap: str, topic: str, count: int, partitions: int = 3) -> list[Any]:
    """The first `count` messages of a topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    out: list[Any] = []
    deadline = time.monotonic() + 20
    while len(out) < count and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            out.append(message)
    consumer.close()
    return out


# ---- without Kafka ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_new"])
def test_a_full_queue_drops_and_counts(make_sender: Any, overflow: str) -> None:
    # The librdkafka queue is bounded as well; both together hold 10 + 10 of the 200 events.
    sender = make_sender(max_queue=10, overflow=overflow, kafka={"queue.buffering.max.messages": 10})
    started = time.monotonic()
    taken = [sender.offer(event(operation=str(i))) for i in range(200)]
    assert time.monotonic() - started < 1.0, "offering does not wait"
    until(lambda: sender.stats()["remaining"] <= 21, "queue settles")
    stats = sender.stats()
    assert stats["dropped"]["queue_full"] == 200 - stats["remaining"]
    assert stats["sent"] == 0
    assert all(taken) if overflow == "drop_oldest" else taken.count(False) == stats["dropped"]["queue_full"]
    assert sender.flush(0.05) == stats["remaining"]


def test_the_oldest_or_the_newest_goes(make_sender: Any) -> None:
    kept: dict[str, list[str]] = {}
    for overflow in ("drop_oldest", "drop_new"):
        gate, got = threading.Event(), []

        class Slow:
            def encode(self, record: Mapping[str, Any], gate: Any = gate, got: Any = got) -> bytes:
                gate.wait(20)
                got.append(record["operation"])
                return b"x"

        sender = make_sender(max_queue=2, overflow=overflow, codec=Slow())
        sender.offer(event(operation="first"))
        until(lambda s=sender: not s._queue, "the thread holds the first event")  # type: ignore[misc]
        for name in "abcd":
            sender.offer(event(operation=name))
        gate.set()
        until(lambda g=got: len(g) == 3, "all encoded")  # type: ignore[misc]
        kept[overflow] = got
    assert kept == {"drop_oldest": ["first", "c", "d"], "drop_new": ["first", "a", "b"]}


def test_trouble_is_said_once(make_sender: Any, caplog: pytest.LogCaptureFixture) -> None:
    def said() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == "steersman"]

    sender = make_sender(max_queue=5, kafka={"queue.buffering.max.messages": 5})
    with caplog.at_level(logging.WARNING, "steersman"):
        for _ in range(500):
            sender.offer(event())
        until(lambda: bool(said()), "a warning")
        for _ in range(500):
            sender.offer(event())
    assert len(said()) == 1
    assert NOWHERE in said()[0].getMessage()


def test_hostile_values_are_counted_and_harm_no_one(make_sender: Any) -> None:
    class Hostile:
        def __float__(self) -> float:
            raise RuntimeError("boo")

        def __index__(self) -> int:
            raise RuntimeError("boo")

    sender = make_sender()
    sender.offer(event(cost_micro_usd=Hostile()))
    sender.offer(event(trace_id="short"))
    sender.offer(event(input_tokens=math.nan, operation="x" * 10**6))
    until(lambda: not sender._queue and len(sender.stats()["problems"]) >= 2, "all looked at")
    stats = sender.stats()
    assert stats["dropped"] == {"unencodable": 1, "invalid:trace_id": 1}
    assert stats["problems"]["bad_value:input_tokens"] == 1
    assert stats["problems"]["truncated"] == 1
    assert stats["remaining"] == 1


def test_a_tracer_without_kafka_costs_the_agent_nothing() -> None:
    tracer = Tracer("a", brokers=NOWHERE, max_queue=50, kafka={"queue.buffering.max.messages": 50})
    started = time.monotonic()
    for _ in range(2000):
        with tracer.span(Kind.TOOL_CALL) as span:
            span.set(input_tokens=1)
    assert time.monotonic() - started < 2.0
    until(lambda: tracer.stats()["remaining"] <= 101, "queue settles")
    assert tracer.stats()["dropped"]["queue_full"] >= 3800
    started = time.monotonic()
    assert tracer.close(0.1) > 0
    assert time.monotonic() - started < 3.0
    assert tracer.feedback(new_trace_id(), value=1.0) is False
    assert tracer.stats()["dropped"]["closed"] == 1


def test_settings_that_librdkafka_refuses_are_counted_not_raised(make_sender: Any) -> None:
    sender = make_sender(kafka={"no.such.setting": "1"})
    assert sender.offer(event())
    until(lambda: sender.stats()["problems"].get("bad_kafka_settings", 0) >= 1, "the attempt")
    assert sender.flush(0.01) == 1


@pytest.mark.parametrize("options", [{"max_queue": 0}, {"overflow": "explode"}])
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Sender(NOWHERE, TOPIC, **options)


def test_a_lost_producer_is_replaced_and_its_records_sent_again(make_sender: Any) -> None:
    class Fenced:
        """A producer whose standing with the broker is gone."""

        def __init__(self) -> None:
            self.reports: list[Any] = []

        def produce(self, topic: str, *, value: bytes, key: bytes, on_delivery: Any) -> None:
            self.reports.append((on_delivery, key, value))

        def poll(self, timeout: float = 0) -> int:
            reports, self.reports = self.reports, []
            for report, key, value in reports:
                report(self.outcome(), Message(key, value))
            return len(reports)

        def __len__(self) -> int:
            return len(self.reports)

        def outcome(self) -> KafkaError | None:
            return KafkaError(KafkaError._FATAL)

        def purge(self) -> None:
            pass

    class Healthy(Fenced):
        def outcome(self) -> KafkaError | None:
            delivered.append(1)
            return None

    class Message:
        def __init__(self, key: bytes, value: bytes) -> None:
            self.key, self.value = lambda: key, lambda: value

    delivered: list[int] = []
    producers = iter([Fenced(), Healthy()])
    sender = make_sender(make_producer=lambda config: next(producers))
    for _ in range(20):
        sender.offer(event())
    assert sender.flush(10) == 0
    assert len(delivered) == 20
    assert sender.stats()["sent"] == 20
    assert sender.stats()["producers"] == 2


def test_importing_starts_no_thread() -> None:
    script = "import threading, steersman; print(threading.active_count()); steersman.Tracer('a'); print(threading.active_count())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["1", "1"]


# ---- with Kafka ------------------------------------------------------------------------------------------------------


def test_events_arrive_in_order_under_their_trace(broker: Broker, topics: Topics) -> None:
    tracer = Tracer("retrieval", brokers=broker.bootstrap, topics=topics)
    roots = []
    for i in range(100):
        with tracer.span(Kind.AGENT) as root, tracer.span(Kind.TOOL_CALL, operation=f"t{i}"):
            pass
        roots.append(root.trace_id)
    assert tracer.flush(20) == 0
    stats = tracer.stats()
    assert (stats["sent"], stats["dropped"], stats["remaining"]) == (300, {}, 0)
    codec = Codec("trace_event")
    messages = read(broker.bootstrap, topics.trace, 300)
    kinds: dict[str, list[str]] = {}
    partitions: dict[str, set[int]] = {}
    for message in messages:
        record = codec.decode(message.value())
        assert message.key() == record["trace_id"].encode()
        kinds.setdefault(record["trace_id"], []).append(record["kind"])
        partitions.setdefault(record["trace_id"], set()).add(message.partition())
    assert set(kinds) == set(roots)
    assert all(found == ["TOOL_CALL", "AGENT", "END"] for found in kinds.values())
    assert all(len(found) == 1 for found in partitions.values())
    assert len(set.union(*partitions.values())) == 3
    tracer.close()


def test_the_partition_is_murmur2s(broker: Broker, topics: Topics) -> None:
    from aiokafka.partitioner import DefaultPartitioner

    tracer = Tracer("a", brokers=broker.bootstrap, topics=topics)
    for _ in range(50):
        with tracer.span(end=False):
            pass
    assert tracer.close(20) == 0
    for message in read(broker.bootstrap, topics.trace, 50):
        assert message.partition() == DefaultPartitioner()(message.key(), [0, 1, 2], [0, 1, 2])


def test_feedback_of_another_process_finds_the_trace(broker: Broker, topics: Topics) -> None:
    decision_id = f"{new_trace_id()}-{new_span_id()}"
    script = (
        "import sys; from steersman import Tracer, Topics\n"
        "t = Tracer('judge', brokers=sys.argv[1], topics=Topics(sys.argv[2]))\n"
        "print(t.feedback(sys.argv[3], value=0.5))\n"  # no flush: the end of the process delivers
    )
    done = subprocess.run(
        [sys.executable, "-c", script, broker.bootstrap, topics.prefix, decision_id],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("True", "")
    (message,) = read(broker.bootstrap, topics.trace, 1)
    record = Codec("trace_event").decode(message.value())
    assert (record["kind"], record["value"], record["target_decision_id"]) == ("FEEDBACK", 0.5, decision_id)


FORKING = """
import json, multiprocessing, os, sys, time
from steersman import Kind, Topics, Tracer
tracer = Tracer("a", brokers=sys.argv[1], topics=Topics(sys.argv[2]), kafka={"linger.ms": 50})

def work(name, count):
    for i in range(count):
        with tracer.span(Kind.TOOL_CALL, operation=name, end=False):
            pass

def child(name, count):
    work(name, count)  # no flush: the end of the child delivers

work("parent", 20)                       # some of these are still on their way when the children are made
children = [multiprocessing.get_context("fork").Process(target=child, args=(f"child{i}", 20)) for i in range(3)]
for process in children:
    process.start()
pid = os.fork()
if pid == 0:
    work("raw", 20)
    left = tracer.flush(20)
    os._exit(left)
work("parent", 20)
for process in children:
    process.join(30)
_, status = os.waitpid(pid, 0)
print(json.dumps({"left": tracer.flush(20), "codes": [p.exitcode for p in children] + [os.waitstatus_to_exitcode(status)], "stats": tracer.stats()}))
"""


def test_forked_children_send_their_own_events_and_only_those(broker: Broker, topics: Topics) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING, broker.bootstrap, topics.prefix],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert (report["left"], report["codes"]) == (0, [0, 0, 0, 0]), done.stderr
    assert report["stats"]["sent"] == 40
    codec = Codec("trace_event")
    records = [codec.decode(m.value()) for m in read(broker.bootstrap, topics.trace, 120)]
    counts: dict[str, int] = {}
    for record in records:
        counts[record["operation"]] = counts.get(record["operation"], 0) + 1
    assert counts == {"parent": 40, "child0": 20, "child1": 20, "child2": 20, "raw": 20}
    assert len({record["span_id"] for record in records}) == 120, "ids differ between parent and children"


def create_topic(bootstrap: str) -> None:
    """Create the topic, unless the waiting producer's question for it has made the broker create it already."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    try:
        admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(20)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def test_events_wait_for_a_broker_that_comes_later(tmp_path: Path, make_sender: Any) -> None:
    from console.brokers import start_tansu
    from console.children import free_port

    port = free_port()
    sender = make_sender(f"127.0.0.1:{port}")
    for _ in range(30):
        sender.offer(event())
    assert sender.flush(0.2) == 30
    running = start_tansu(tmp_path, port)
    try:
        create_topic(running.bootstrap)
        assert sender.flush(30) == 0
        assert sender.stats()["sent"] == 30
    finally:
        sender.close(1)
        running.stop()


def test_a_broker_restarted_without_its_memory_gets_what_was_waiting(tmp_path: Path, make_sender: Any) -> None:
    from console.brokers import start_tansu
    from console.children import free_port

    port = free_port()

    def start(name: str) -> Broker:
        running = start_tansu(tmp_path / name, port)
        create_topic(running.bootstrap)
        return running

    running = start("one")
    sender = make_sender(running.bootstrap, stall_s=1.0)
    sender.offer(event())
    assert sender.flush(20) == 0
    running.stop()
    for _ in range(20):
        sender.offer(event())
    running = start("two")
    try:
        assert sender.flush(40) == 0
        assert len(read(running.bootstrap, TOPIC, 20, partitions=1)) == 20
        assert sender.stats()["dropped"] == {}
    finally:
        sender.close(1)
        running.stop()


def test_the_end_of_the_process_is_not_held_up_for_long() -> None:
    script = (
        "from steersman import Kind, Tracer, forks\n"
        "forks.EXIT_DEADLINE_S = 0.5\n"
        "t = Tracer('a', brokers='127.0.0.1:1')\n"
        "with t.span(Kind.AGENT): pass\n"
    )
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, timeout=60)
    assert time.monotonic() - started < 15


def test_the_default_producer_is_made_with_our_settings() -> None:
    from steersman.kafka_config import producer_config

    config = producer_config(NOWHERE, {"linger.ms": 1})
    assert (config["partitioner"], config["enable.idempotence"], config["acks"]) == ("murmur2_random", True, "all")
    assert config["linger.ms"] == 1
    assert Producer(config) is not None
