"""Signed policies through Apache Kafka: a worker signs, a router obeys; forgeries move neither agents nor the learner."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from console.brokers import Broker
from steersman.codec import Codec
from steersman.events import Mode
from steersman.router import Router
from steersman.signing import PolicySigner
from steersman.sink import MemorySink
from steersman.snapshot import PolicySnapshot
from steersman.subscriber import PolicySubscriber
from steersman.tracer import Tracer
from tests.streams.learner_bench import ROOT, LearnerBench

KEY = b"default/a/one"


@pytest.fixture
def bench(kafka: Broker, tmp_path: Path) -> Iterator[LearnerBench]:
    bench = LearnerBench(kafka.bootstrap, tmp_path)
    yield bench
    bench.close()


def steersman(bench: LearnerBench, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STEERSMAN_")}
    environment |= {"STEERSMAN_TOPIC_PREFIX": bench.topics.prefix, "NO_COLOR": "1", "COLUMNS": "300"}
    return subprocess.run(
        [str(ROOT / "bin/steersman"), *args], cwd=bench.tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )  # fmt: skip


def test_agents_and_learner_follow_signed_policies_only(bench: LearnerBench, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = bench.tmp_path / "keys"
    for name in ("ours", "stranger"):
        made = steersman(bench, "policy", "keygen", "--out", str(keys), "--name", name)
        assert made.returncode == 0, made.stderr
        assert (keys / f"{name}.key").stat().st_mode & 0o777 == 0o600
        assert (keys / f"{name}.key").read_text().splitlines()[1] not in made.stdout + made.stderr
    assert steersman(bench, "policy", "keygen", "--out", str(keys), "--name", "ours").returncode == 2

    monkeypatch.setenv("STEERSMAN_POLICY_SIGNING_KEY", str(keys / "ours.key"))
    bench.start()
    bench.send(0, 200)
    bench.until(lambda: (1, 200) in bench.ranks())
    trusting = ("policy", "verify", "--brokers", bench.bootstrap, "--key", str(keys / "ours.pub"))
    checked = steersman(bench, *trusting, "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads(checked.stdout)["signature"] == "good"
    assert steersman(bench, *trusting[:-1], str(keys / "stranger.pub")).returncode == 4

    subscriber = PolicySubscriber(
        bench.bootstrap, topics=bench.topics, policy_keys=[keys / "ours.pub"], fetch_wait_ms=20
    ).start()
    router = Router(subscriber, Tracer("a", sink=MemorySink()))
    try:
        assert subscriber.wait_ready(20)
        decision = router.choose("a/one", {})
        assert (decision.mode, decision.policy_epoch, decision.policy_version) == (Mode.LIVE, 1, 200)

        codec = Codec("policy_snapshot", max_bytes=1 << 24)
        good = bench.raw_policy()
        forged = replace(PolicySnapshot.from_record(codec.decode(good)), epoch=99, version=1)
        stranger = PolicySigner(bench.topics.policy, keys / "stranger.key")
        ours_elsewhere = PolicySigner("staging.policy.v1", keys / "ours.key")
        for value in (
            stranger.encode(codec, KEY, forged.to_record()),
            codec.encode(forged.to_record() | {"stage": "RETIRED", "signature": b""}),
            ours_elsewhere.encode(codec, KEY, forged.to_record()),
            codec.encode(forged.to_record()),
            None,
        ):
            bench.producer.produce(bench.topics.policy, value, KEY)
        assert bench.producer.flush(20) == 0
        bench.until(lambda: subscriber.stats()["counts"].get("tombstones", 0) == 1)
        counts = subscriber.stats()["counts"]
        assert (counts["refused:signature"], counts["refused:unsigned"]) == (3, 1)
        assert router.choose("a/one", {}).policy_version == 200

        # The learner does not take the forged epoch for another learner's either: it goes on, and agents with it.
        bench.send(200, 300)
        bench.until(lambda: router.choose("a/one", {}).policy_version == 300)
        assert router.choose("a/one", {}).policy_epoch == 1
        assert not bench.alerts()
    finally:
        subscriber.close()
    assert steersman(bench, *trusting).returncode == 4
    rebuilt = bench.rebuild("--json")
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    assert json.loads(rebuilt.stdout)["identical"]


def test_a_worker_does_not_start_with_a_key_that_anybody_may_read(
    bench: LearnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert steersman(bench, "policy", "keygen", "--out", str(bench.tmp_path)).returncode == 0
    key = bench.tmp_path / "policy.key"
    key.chmod(0o644)
    monkeypatch.setenv("STEERSMAN_POLICY_SIGNING_KEY", str(key))
    assert bench.start().wait(60) == 2
    assert "chmod 600" in bench.logs()
