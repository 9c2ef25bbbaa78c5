"""The real worker as a process, on a real broker: nothing lost, nothing silently repeated, and orderly ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from console.brokers import Broker, start_kafka
from steersman.codec import Codec
from steersman.errors import ConfigError
from steersman.topics import Topics
from streams.topics import create_topics

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 4
EVENT = {"tenant": "default", "span_id": "0" * 15 + "1", "agent": "a", "kind": "FEEDBACK", "ts": 1_800_000_000_000_000}
_numbers = iter(range(10_000))


class Bench:
    """Topics of their own on a broker, workers on them, and what comes out."""

    def __init__(self, bootstrap: str, tmp_path: Path, session_s: float) -> None:
        self.bootstrap = bootstrap
        self.topics = Topics(f"w{os.getpid()}n{next(_numbers)}")
        self.tmp_path = tmp_path
        self.session_s = session_s
        self.workers: list[subprocess.Popen[bytes]] = []
        create_topics(bootstrap, self.topics, PARTITIONS)
        self.codec = Codec("trace_event")
        self.sent: dict[int, list[tuple[int, int]]] = defaultdict(list)  # partition -> (offset, value)
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "acks": "all",
                "log_level": 0,
            }
        )

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        number = len(self.workers)
        log = (self.tmp_path / f"worker{number}.log").open("wb")
        worker = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("ledger_worker.py"))],
            cwd=ROOT,
            stderr=log,
            stdout=log,
            env={
                **os.environ,
                "STEERSMAN_BROKERS": self.bootstrap,
                "STEERSMAN_TOPIC_PREFIX": self.topics.prefix,
                "STEERSMAN_SESSION_TIMEOUT_S": str(self.session_s),
                "STEERSMAN_CHECKPOINT_INTERVAL_S": "0.3",
                "STEERSMAN_MAX_POLL_RECORDS": "200",
                **environment,
            },
        )
        log.close()
        self.workers.append(worker)
        return worker

    def log(self, number: int = -1) -> str:
        number = number % len(self.workers)
        return (self.tmp_path / f"worker{number}.log").read_text()

    def send(self, count: int, *, partition: int | None = None) -> None:
        """Events with the values 1, 2, 3, ... spread over the partitions."""
        for n in range(count):
            event = {
                **EVENT,
                "event_id": f"{n:032x}",
                "trace_id": f"{n + 1:032x}",
                "metric": "m",
                "value": float(n % 97),
            }
            target = n % PARTITIONS if partition is None else partition
            self.produce(self.codec.encode(event), target, n % 97)
            if n % 5000 == 0:
                self.producer.poll(0)
        assert self.producer.flush(30) == 0

    def produce(self, value: bytes | None, partition: int, note: int | None, **options: Any) -> None:
        def delivered(error: object, message: Message) -> None:
            assert error is None
            offset = message.offset()
            assert offset is not None
            if note is not None:
                self.sent[partition].append((offset, note))

        self.producer.produce(self.topics.trace, value=value, partition=partition, on_delivery=delivered, **options)

    def expected(self) -> set[str]:
        """Every output the ledger must make, exactly."""
        lines = set()
        for partition, events in self.sent.items():
            total = 0
            for count, (offset, value) in enumerate(sorted(events), 1):
                total += value
                lines.add(f"{partition}:{offset}:{count}:{total}")
        return lines

    @contextlib.contextmanager
    def reader(self, topic: str) -> Iterator[Callable[[], list[Message]]]:
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "reader", "enable.auto.commit": False, "log_level": 0}
        )
        found: list[Message] = []
        numbers = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in numbers])

        def read() -> list[Message]:
            while (message := consumer.poll(0.2)) is not None:
                assert message.error() is None
                found.append(message)
            return found

        yield read
        consumer.close()

    def outputs(self, expected: int, timeout_s: float = 60) -> Counter[str]:
        """Distinct outputs -> how often, once there are as many as expected."""
        with self.reader(self.topics.rollup) as read:
            deadline = time.monotonic() + timeout_s
            while True:
                seen = Counter((message.value() or b"").decode() for message in read())
                if len(seen) >= expected:
                    return seen
                assert time.monotonic() < deadline, f"{len(seen)} of {expected} outputs\n{self.log()[-3000:]}"

    def committed(self) -> dict[int, int]:
        """Offsets the group has committed."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": f"{self.topics.prefix}-streams"})
        try:
            asked = [TopicPartition(self.topics.trace, p) for p in range(PARTITIONS)]
            return {tp.partition: tp.offset for tp in consumer.committed(asked, timeout=10)}
        finally:
            consumer.close()

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()


@pytest.fixture
def bench(broker: Broker, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(broker.bootstrap, tmp_path, 2)
    yield bench
    bench.close()


@pytest.fixture
def kafka_bench(kafka: Broker, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(kafka.bootstrap, tmp_path, 6)
    yield bench
    bench.close()


def stop(worker: subprocess.Popen[bytes]) -> tuple[int, float]:
    started = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    return worker.wait(20), time.monotonic() - started


def test_every_event_once_on_kafka_and_an_orderly_end(kafka_bench: Bench) -> None:
    kafka_bench.send(8000)
    worker = kafka_bench.start()
    expected = kafka_bench.expected()
    seen = kafka_bench.outputs(8000)
    assert set(seen) == expected
    assert set(seen.values()) == {1}
    code, took = stop(worker)
    assert (code, took < 10) == (0, True), kafka_bench.log()
    assert kafka_bench.committed() == dict.fromkeys(range(PARTITIONS), 2000)


def test_what_a_fetch_passed_over_is_read_again(bench: Bench) -> None:
    """The embedded broker may show records before those in front of them; six fetches lack some here."""
    bench.start(LEDGER_LATE="6")
    for n in range(1, 5):
        bench.send(1000)
        bench.outputs(1000 * n)
    seen = bench.outputs(4000)
    assert set(seen) == bench.expected()
    assert set(seen.values()) == {1}
    assert len(re.findall("read again from", bench.log())) == 6
    assert "never processed" not in bench.log()


def test_nothing_stays_of_finished_batches(bench: Bench) -> None:
    """Faust's compiled loop notes the offset of every event for its own commits, which are not those of this transport."""
    worker = bench.start()
    for n in range(1, 9):
        bench.send(4)
        bench.outputs(4 * n)
    assert stop(worker)[0] == 0
    [(kept, consumers)] = re.findall(r"offsets that Faust still keeps: (\d+) of (\d+) consumer", bench.log())
    assert consumers == "1"
    assert int(kept) <= PARTITIONS


def test_poison_goes_to_the_dead_letters_with_its_reason(kafka_bench: Bench) -> None:
    good = {**EVENT, "event_id": "e" * 32, "trace_id": "f" * 32, "metric": "m"}
    poison = [b"", b"not avro", b"\xc3\x01" + bytes(8) + b"x", kafka_bench.codec.encode({**good, "value": 1.0}) + b"!"]
    for n in range(40):
        kafka_bench.send(25, partition=1)
        kafka_bench.produce(
            poison[n % 4], 1, None, key=b"k%d" % n, headers=[("traceparent", b"00-aa")], timestamp=1234 + n
        )
    kafka_bench.produce(kafka_bench.codec.encode(good), 2, None, key=b"null value")
    kafka_bench.produce(None, 2, None, key=b"tombstone")
    kafka_bench.producer.flush(30)
    worker = kafka_bench.start()
    seen = kafka_bench.outputs(1000)
    assert set(seen) == kafka_bench.expected()
    code, _ = stop(worker)
    assert code == 0
    with kafka_bench.reader(kafka_bench.topics.dead_letter) as read:
        dead = read()
    assert len(dead) == 42
    reasons: Counter[str] = Counter()
    for message in dead:
        headers = dict(message.headers() or [])
        reasons[f"{headers['__connect.errors.stage'].decode()} {headers['__connect.errors.reason'].decode()}"] += 1
        assert headers["__connect.errors.topic"].decode() == kafka_bench.topics.trace
        assert headers["__connect.errors.connector.name"] == b"trace"
        if (message.key() or b"").startswith(b"k"):
            n = int((message.key() or b"")[1:])
            assert message.value() == poison[n % 4]
            assert message.timestamp()[1] == 1234 + n
            assert headers["traceparent"] == b"00-aa"
            assert headers["__connect.errors.partition"] == b"1"
            assert int(headers["__connect.errors.offset"]) == 25 * (n + 1) + n
            assert b"DecodeError" in headers["__connect.errors.exception.stacktrace"]
    assert reasons == {
        "DESERIALIZE empty": 11,
        "DESERIALIZE magic": 10,
        "DESERIALIZE unknown_schema": 10,
        "DESERIALIZE trailing_bytes": 10,
        "VALIDATE no_value": 1,
    }


@pytest.mark.parametrize(("where", "kills"), [("bench", 4), ("kafka_bench", 2)])
def test_killed_again_and_again_nothing_is_lost_and_repeats_are_identical(
    request: pytest.FixtureRequest, where: str, kills: int
) -> None:
    bench: Bench = request.getfixturevalue(where)
    total = 0
    for n in range(kills):
        bench.send(6000)
        total += 6000
        worker = bench.start()
        # Each time somewhere else: at the first outputs, in the middle, near the end of what there is.
        bench.outputs(total - 6000 + (1, 2500, 5000, 5900)[n])
        worker.kill()
        worker.wait()
    bench.send(1000)
    total += 1000
    last = bench.start()
    seen = bench.outputs(total)
    assert set(seen) == bench.expected()
    # Repeats carry the same bytes, so they are found in the same set; there must be few of them.
    assert sum(seen.values()) < total + kills * 6000
    assert stop(last)[0] == 0
    assert sum(bench.committed().values()) == total


def test_a_second_worker_takes_over_a_share_and_gives_it_back(kafka_bench: Bench) -> None:
    kafka_bench.send(2000)
    first = kafka_bench.start()
    kafka_bench.outputs(2000)
    second = kafka_bench.start()
    total, deadline, taken = 2000, time.monotonic() + 40, set()
    while len(taken) < 2:  # keep events coming while the group rebalances
        kafka_bench.send(500)
        total += 500
        assert time.monotonic() < deadline, kafka_bench.log(1)
        time.sleep(0.2)
        taken = set(re.findall(r"trace: partition (\d) restored", kafka_bench.log(1)))
    kafka_bench.send(2000)
    total += 2000
    seen = kafka_bench.outputs(total)
    assert set(seen) == kafka_bench.expected()
    assert sum(seen.values()) == total
    assert stop(second)[0] == 0
    kafka_bench.send(2000)
    total += 2000
    seen = kafka_bench.outputs(total)
    assert stop(first)[0] == 0
    assert set(seen) == kafka_bench.expected()
    assert sum(seen.values()) == total


def test_what_was_saved_but_not_committed_is_committed_by_the_next_worker(kafka_bench: Bench) -> None:
    kafka_bench.send(400, partition=1)
    first = kafka_bench.start(STEERSMAN_FAULT_POINT="trace.state_delivered:1", STEERSMAN_CHECKPOINT_INTERVAL_S="5")
    assert first.wait(40) == 137, kafka_bench.log()
    assert kafka_bench.committed()[1] < 400
    second = kafka_bench.start()
    deadline = time.monotonic() + 40
    while kafka_bench.committed()[1] < 400:  # nothing comes that would lead to a commit of its own
        assert time.monotonic() < deadline, kafka_bench.log()
        time.sleep(0.1)
    assert "from offset 400" in kafka_bench.log()
    assert stop(second)[0] == 0


def test_ticks_go_to_exactly_the_partitions_that_wait(bench: Bench) -> None:
    worker = bench.start(LEDGER_TICKS="1")
    seen = bench.outputs(PARTITIONS)
    assert sorted(seen) == [f"{p}:0:tick" for p in range(PARTITIONS)]
    assert stop(worker)[0] == 0


def test_a_flood_of_poison_stops_the_worker_instead_of_draining_the_topic(bench: Bench) -> None:
    bench.send(100, partition=0)
    for n in range(500):
        bench.produce(b"rubbish %d" % n, 0, None)
    bench.producer.flush(30)
    worker = bench.start(STEERSMAN_DEAD_LETTER_MAX_CONSECUTIVE="50")
    assert worker.wait(40) == 1
    assert "51 records in a row failed" in bench.log()
    with bench.reader(bench.topics.dead_letter) as read:
        assert len(read()) <= 50


def test_a_topic_created_anew_is_noticed_instead_of_skipped(bench: Bench) -> None:
    bench.send(400)
    worker = bench.start()
    bench.outputs(400)
    assert stop(worker)[0] == 0
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    admin.delete_topics([bench.topics.trace])[bench.topics.trace].result(10)
    create_topics(bench.bootstrap, bench.topics, PARTITIONS)
    worker = bench.start()
    assert worker.wait(40) == 2
    assert "was deleted and created anew" in bench.log()


def test_no_broker_is_said_clearly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streams", "topics", "--brokers", "127.0.0.1:1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    assert "cannot reach Kafka at 127.0.0.1:1" in done.stderr
    assert "STEERSMAN_BROKERS" in done.stderr


def test_wrong_settings_are_said_clearly() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streams", "worker", "--stages", "tarce"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert json.loads(done.stderr)["event"].startswith("stages.0: Input should be 'trace' or 'learn'")


def test_a_broker_killed_and_started_again_costs_nothing(tmp_path: Path) -> None:
    try:
        kafka = start_kafka(tmp_path / "kafka")
    except ConfigError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    bench = Bench(kafka.bootstrap, tmp_path, 6)
    try:
        bench.send(1000)
        worker = bench.start()
        bench.outputs(1000)
        kafka.child.kill()
        time.sleep(2)
        assert worker.poll() is None, bench.log()
        kafka = start_kafka(tmp_path / "kafka", int(kafka.bootstrap.rpartition(":")[2]))
        bench.send(1000)
        seen = bench.outputs(2000)
        assert set(seen) == bench.expected()
        assert sum(seen.values()) == 2000
        assert stop(worker)[0] == 0
    finally:
        bench.close()
        kafka.stop()
