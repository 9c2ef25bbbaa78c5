"""Acts through Apache Kafka: workers that are killed, take over from each other, and sign what they publish."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console.brokers import Broker
from learners.exploring import RULES
from steersman.codec import Codec
from steersman.headers import RULES_HEADER
from steersman.signing import PolicySigner, PolicyVerifier, generate_keys
from streams.operator import Aim, Operator, act_record
from streams.partition_log import PartitionLog
from streams.topics import MAX_STATE_BYTES
from tests.streams.learner_bench import LearnerBench

KEY = b"default/a/one"


@pytest.fixture
def bench(kafka: Broker, tmp_path: Path) -> Iterator[LearnerBench]:
    bench = LearnerBench(kafka.bootstrap, tmp_path)
    yield bench
    bench.close()


def test_acts_survive_workers_and_pins_need_a_signature(bench: LearnerBench, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = bench.tmp_path / "one.key", bench.tmp_path / "one.pub"
    generate_keys(private, public)
    generate_keys(bench.tmp_path / "other.key", bench.tmp_path / "other.pub")
    monkeypatch.setenv("STEERSMAN_POLICY_SIGNING_KEY", str(private))
    operator = Operator(bench.bootstrap, bench.topics)
    codec = Codec("policy_snapshot", max_bytes=MAX_STATE_BYTES)

    def act(name: str, aim: Aim | None = None, act_id: str = "") -> dict[str, Any]:
        record = act_record("default", "a/one", name, who="ann", why="test", ts=7, aim=aim, act_id=act_id)
        outcome = operator.outcome(record["act_id"], operator.ask(record), 90.0)
        assert outcome is not None, bench.logs()
        return outcome

    bench.start()
    bench.send(0, 60)
    bench.until(lambda: (1, 60) in bench.ranks())
    [old] = [
        r for r in PartitionLog(bench.bootstrap, bench.topics.policy, 0) if codec.decode(r.value)["version"] == 60
    ][:1]
    assert old.value is not None
    assert dict(old.headers)[RULES_HEADER] == str(RULES).encode()
    bench.send(60, 120)
    bench.until(lambda: (1, 120) in bench.ranks())

    record = codec.decode(old.value)
    forged = PolicySigner(bench.topics.policy, bench.tmp_path / "other.key").encode(codec, KEY, record)
    refused = act("PIN", Aim(1, 60, forged))
    assert refused["reason"] == "its snapshot is not signed by a key that the learner trusts (signature)"
    pinned = act("PIN", Aim(1, 60, old.value), "pin")
    assert (pinned["outcome"], pinned["standing"], pinned["at_version"]) == ("APPLIED", "pinned", 120)
    bench.until(lambda: bench.snapshots()[-1]["pinned"] == "1.60")
    assert PolicyVerifier(bench.topics.policy, [public]).check(codec, KEY, bench.raw_policy()).reason == ""

    # Whoever takes over goes on from there: once by taking over from a living one, once after a kill.
    first = bench.workers[0]
    bench.start()
    bench.send(120, 180)
    first.send_signal(signal.SIGKILL)
    first.wait()
    aim = Aim(1, 60, old.value)
    operator.ask(act_record("default", "a/one", "PIN", who="ann", why="test", ts=7, aim=aim, act_id="pin"))  # again
    frozen = act("FREEZE")
    assert frozen["standing"] == "frozen"
    assert 120 <= frozen["at_version"] <= 180, "wherever the next owner was by then"
    bench.until(lambda: bench.snapshots()[-1]["stage"] == "FROZEN")
    last = bench.snapshots()[-1]
    assert last["version"] >= frozen["at_version"]
    assert (last["pinned"], last["tensors"]) == ("1.60", record["tensors"])
    bench.workers[1].send_signal(signal.SIGTERM)
    assert bench.workers[1].wait(60) == 0, bench.logs()
    bench.start()
    bench.send(180, 240)
    for name, standing in (("UNFREEZE", "pinned"), ("UNPIN", "live")):
        assert act(name)["standing"] == standing
    bench.until(lambda: bench.ranks()[-1] == (1, 240))
    last = bench.snapshots()[-1]
    assert (last["stage"], last["pinned"], last["acts"]) == ("LIVE", "", 4)
    bench.until(lambda: bench.rebuild().returncode == 0)
    answers = [a for a in bench_acts(bench) if a["outcome"] != "ASKED"]
    assert [a["act"] for a in answers] == ["PIN", "PIN", "FREEZE", "UNFREEZE", "UNPIN"], "each act is answered once"


def bench_acts(bench: LearnerBench) -> list[dict[str, Any]]:
    codec = Codec("policy_act", max_bytes=MAX_STATE_BYTES)
    return [codec.decode(r.value, r.headers) for r in PartitionLog(bench.bootstrap, bench.topics.control, 0)]
