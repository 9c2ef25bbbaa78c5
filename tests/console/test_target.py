from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from console.target import resolve


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEERSMAN_HOME", str(tmp_path))
    monkeypatch.delenv("STEERSMAN_BROKERS", raising=False)
    monkeypatch.delenv("STEERSMAN_CLICKHOUSE_URL", raising=False)


def stack(tmp_path: Path, pid: int) -> None:
    (tmp_path / "stack.json").write_text(json.dumps({"pid": pid, "brokers": "b:1", "clickhouse": "http://c:2"}))


def test_defaults() -> None:
    target = resolve()
    assert (target.brokers, target.clickhouse, target.origin) == (
        "127.0.0.1:9092",
        "http://127.0.0.1:8123",
        "defaults",
    )


def test_the_running_stack_is_found(tmp_path: Path) -> None:
    stack(tmp_path, os.getpid())
    assert (resolve().brokers, resolve().clickhouse, resolve().origin) == (
        "b:1",
        "http://c:2",
        "running stack",
    )


def test_the_running_stack_says_whether_it_prices_calls(tmp_path: Path) -> None:
    stack(tmp_path, os.getpid())
    assert not resolve().priced
    state = json.loads((tmp_path / "stack.json").read_text())
    (tmp_path / "stack.json").write_text(json.dumps(state | {"prices": "prices.toml"}))
    assert resolve().priced
    assert not resolve("other:1").priced


def test_a_dead_stack_is_not(tmp_path: Path) -> None:
    stack(tmp_path, 2**22 + 1)  # above the kernel's highest process id
    assert resolve().origin == "defaults"


def test_the_environment_beats_the_stack_and_the_command_line_beats_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack(tmp_path, os.getpid())
    monkeypatch.setenv("STEERSMAN_BROKERS", "env:1")
    assert (resolve().brokers, resolve().clickhouse) == ("env:1", "http://c:2")
    assert (resolve("cli:1").brokers, resolve("cli:1").origin) == ("cli:1", "command line")


def test_data_left_by_a_stopped_demo_is_read_in_process(tmp_path: Path) -> None:
    (tmp_path / "demo" / "clickhouse").mkdir(parents=True)
    assert resolve().clickhouse == f"chdb://{tmp_path}/demo/clickhouse"
