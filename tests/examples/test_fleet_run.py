"""The fleet as real processes on a real broker: without any policy the agents keep deciding by their baselines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from console.brokers import Broker
from examples.fleet.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


def start(brokers: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "examples.fleet", "--brokers", brokers, "--topic-prefix", "fleet-test", *arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )


def test_runs_to_its_end_without_policies(broker: Broker) -> None:
    fleet = start(broker.bootstrap, "--rate", "20", "--seconds", "3", "--wait", "0", "--json")
    out, err = fleet.communicate(timeout=120)
    assert fleet.returncode == 0, err
    summary = json.loads(out)
    assert summary["failed"] == {}
    assert summary["undelivered"] == 0
    assert 40 <= summary["interactions"] <= 61
    assert summary["fallback_share"] == 1.0
    assert summary["all"]["latency_change"] == pytest.approx(0.0, abs=0.15)
    assert "no policy yet" in err


def test_stops_all_its_processes_on_sigterm(broker: Broker) -> None:
    fleet = start(broker.bootstrap, "--seconds", "0", "--wait", "0")
    assert fleet.stdout is not None
    assert "interactions" in fleet.stdout.readline()  # the first line of progress: all five are at work
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(fleet.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(children) == 5
    fleet.send_signal(signal.SIGTERM)
    out, err = fleet.communicate(timeout=60)
    assert fleet.returncode == 0, err
    assert "last quarter" in out
    time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_without_kafka_the_agents_go_on_and_the_exit_code_tells() -> None:
    fleet = start("127.0.0.1:1", "--rate", "20", "--seconds", "2", "--wait", "0", "--json")
    out, err = fleet.communicate(timeout=120)
    assert fleet.returncode == 3
    summary = json.loads(out)
    assert summary["interactions"] >= 20
    assert summary["undelivered"] > 0
    assert "is Kafka running at 127.0.0.1:1?" in err


@pytest.mark.parametrize("bad", [["--rate", "0"], ["--holdout", "1"], ["--seconds", "-1"], ["--seed", "-1"]])
def test_bad_arguments_are_usage_errors(bad: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(bad)
    assert stopped.value.code == 2
