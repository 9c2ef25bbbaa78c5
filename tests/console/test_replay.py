"""`steersman replay` on a broker: the log is read as it is, the answer is the pure one's, and nothing is written."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from console import replay
from console.brokers import Broker
from console.children import ROOT, free_port
from console.target import Target
from learners.whatif.answer import answer
from learners.whatif.reward_log import LogReader
from learners.whatif.translation import translate
from steersman.codec import Codec
from steersman.errors import ConfigError, Unreachable
from steersman.kafka_config import producer_config
from steersman.topics import Topics
from streams.learning_stage import partition_of
from streams.topics import create_topics, existing_partitions
from tests.learners.whatif.world import HEAD, SECOND, START_US, log_of, spec_of

EXPLORING = "[policy.exploration]\nfloor = 0.2\n"
PARTITIONS = 3
N = 500


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return log_of(spec_of(HEAD + EXPLORING), N, 3)


@pytest.fixture(scope="module")
def target(broker: Broker, records: list[dict[str, Any]]) -> Target:
    """A reward topic that holds the log, another policy's rewards, repeats and garbage."""
    topics = Topics(f"r{time.time_ns()}")
    create_topics(broker.bootstrap, topics, PARTITIONS)
    codec, producer = Codec("reward"), Producer(producer_config(broker.bootstrap))
    partition = partition_of("default/a/one", PARTITIONS)
    for i, record in enumerate(records):
        for one in [record] * (2 if i % 50 == 0 else 1) + [{**record, "policy": "a/two"}] * (i % 2):
            producer.produce(topics.reward, key=b"default/a/one", value=codec.encode(one), partition=partition)
    producer.produce(topics.reward, key=b"default/a/one", value=b"garbage", partition=partition)
    assert producer.flush(30) == 0
    return Target(broker.bootstrap, "http://127.0.0.1:1", topics.prefix, "test")


@pytest.fixture
def files(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / f"{abs(hash(text))}.toml"
        path.write_text(text)
        return path

    return write


def ends(target: Target) -> dict[tuple[str, int], int]:
    """End offset of every partition of every topic of ours."""
    consumer = Consumer({"bootstrap.servers": target.brokers, "group.id": "ends", "log_level": 0})
    try:
        admin = AdminClient({"bootstrap.servers": target.brokers, "log_level": 0})
        return {
            (topic, p): consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=20)[1]
            for topic, n in existing_partitions(admin, target.brokers).items()
            if topic.startswith(target.prefix)
            for p in range(n)
        }
    finally:
        consumer.close()


def test_the_answer_is_that_of_the_log_and_nothing_is_written(
    target: Target, files: Callable[[str], Path], records: list[dict[str, Any]], tmp_path: Path
) -> None:
    ran, candidate = HEAD + EXPLORING, HEAD.replace("cost = 0.2", "cost = 0.02") + EXPLORING
    reader = LogReader(spec_of(ran))
    for record in records:
        reader.add(record)
    pure = answer(translate(spec_of(ran), spec_of(candidate)), reader.finish())
    before = ends(target)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STEERSMAN_")}
    environment |= {"STEERSMAN_HOME": str(tmp_path), "STEERSMAN_TOPIC_PREFIX": target.prefix, "NO_COLOR": "1"}
    done = subprocess.run(
        [
            str(ROOT / "bin/steersman"), "replay", "--brokers", target.brokers, "--policies", str(files(ran)),
            "--policy-file", str(files(candidate)), "--json",
        ],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [said] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (said["rewards_read"], said["rewards"], said["learned"]) == (N + 10, N, N)
    for part in pure.parts:
        for measure in part.measures:
            found = said["parts"][part.name]["measures"][measure.name.replace(" ", "_")]
            estimate = measure.candidate["dr"]
            assert found["estimates"]["dr"] == {
                "value": estimate.value, "likelihood": list(estimate.likelihood), "bernstein": list(estimate.bernstein),
            }  # fmt: skip
            assert (found["gain"], found["decisions"]) == (measure.gain.value, measure.n)
    assert [row["arm"] for row in said["arms"]] == [arm for arm, *_ in pure.shares]
    assert ends(target) == before


def test_it_is_said_in_words_with_verdict_curve_and_warnings(
    target: Target, files: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ran = files(HEAD + EXPLORING)
    candidate = files(
        HEAD.replace('"small", "middle"', '"small", "huge", "middle"').replace(", latency = 0.05", "") + EXPLORING
    )
    since = dt.datetime.fromtimestamp((START_US + 50 * SECOND) / 1e6, dt.UTC)
    request = replay.Request(candidate, ran, "a/one", "default", since=since)
    assert replay.run(target, request, as_json=False) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "default/a/one: 450 rewards replayed, 450 learned from", "Nothing was published.", "as it learned: at each decision it knew only",
        "the policy it had learned from", "utility, weights in force", "share of the decisions of the last part",
        "The control group earned", "Never tried, so nobody can tell from this log: model=huge", "utility a decision",
    ):  # fmt: skip
        assert part in text, part
    assert re.search("what ran [▁▂▃▄▅▆▇█]{12} candidate [▁▂▃▄▅▆▇█]{12} ", text)
    later = replay.Request(candidate, ran, None, "default", since=since + dt.timedelta(days=1))
    assert replay.run(target, later, as_json=False) == 4
    assert "This log cannot tell" in capsys.readouterr().out


def test_what_cannot_be_asked_is_said(
    target: Target, files: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ran = files(HEAD)
    other = files(HEAD.replace('"a/one"', '"a/three"'))
    with pytest.raises(ConfigError, match="has no policy 'nope' of tenant 'default': nothing to replay"):
        replay.run(target, replay.Request(ran, ran, "nope", "default"), as_json=False)
    with pytest.raises(ConfigError, match="name the file that ran with --policies"):
        replay.run(target, replay.Request(other, ran, "a/three", "default"), as_json=False)
    with pytest.raises(ConfigError, match="in common"):
        replay.run(target, replay.Request(other, ran, None, "default"), as_json=False)
    assert "a/three is left out" in capsys.readouterr().err
    nowhere = Target(target.brokers, target.clickhouse, "never-made", "test")
    with pytest.raises(ConfigError, match="nothing was ever learned there"):
        replay.run(nowhere, replay.Request(ran, ran, None, "default"), as_json=False)


def test_no_broker_is_said(files: Callable[[str], Path]) -> None:
    file = files(HEAD)
    nowhere = Target(f"127.0.0.1:{free_port()}", "http://127.0.0.1:1", "steersman", "test")
    with pytest.raises(Unreachable, match=nowhere.brokers):
        replay.run(nowhere, replay.Request(file, file, None, "default"), as_json=False)
