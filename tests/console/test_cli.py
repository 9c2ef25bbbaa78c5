"""The `steersman` command as a user meets it: help, exit codes, errors in one sentence."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from console.children import ROOT, free_port

COMMANDS = [
    ["demo"], ["up"], ["status"], ["topics"], ["migrate"], ["sql"], ["trace", "tail"],
    ["policy", "list"], ["policy", "show"], ["policy", "history"], ["policy", "events"], ["policy", "prior"], ["policy", "keygen"],
    ["policy", "verify"], *(["policy", act] for act in ("pin", "unpin", "freeze", "unfreeze", "rollback", "promote", "retire", "restore")),
    ["policy", "diff"], ["policy", "explain"], ["plan"], ["apply"], ["rebuild"], ["replay"], ["report"], ["ope"], ["prices", "check"], ["prices", "show"],
    ["dlq", "list"], ["dlq", "show"], ["dlq", "replay"], ["doctor"], ["config", "show"],
    ["quarantine"], ["quarantine", "add"], ["quarantine", "lift"], ["quarantine", "list"],
    ["forget"], ["export"],
]  # fmt: skip


def steersman(*args: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if not k.startswith("STEERSMAN_")}
    variables |= {"STEERSMAN_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1", **env}
    return subprocess.run(
        [str(ROOT / "bin/steersman"), *args], capture_output=True, text=True, timeout=120, env=variables, check=False
    )


def test_version(tmp_path: Path) -> None:
    done = steersman("--version", home=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("steersman ")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_help_with_an_example(command: list[str], tmp_path: Path) -> None:
    done = steersman(*command, "--help", home=tmp_path)
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert "--json" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["trace", "tail"],
        ["topics"],
        ["policy", "list"],
        ["policy", "show", "x/y"],
        ["rebuild", "x/y"],
        ["policy", "freeze", "x/y", "--why", "w"],
        ["plan"],
    ],
    ids=" ".join,
)
def test_no_broker_is_said_in_one_sentence(command: list[str], tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = steersman(*command, "--brokers", address, home=tmp_path)
    assert done.returncode == 3
    assert address in done.stderr
    assert "Traceback" not in done.stderr


def test_no_store_is_said_in_one_sentence(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    done = steersman("sql", "SELECT 1", "--clickhouse", address, home=tmp_path)
    assert done.returncode == 3
    assert address in done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = steersman("up", "--port", str(port), home=tmp_path)
    assert done.returncode == 2
    assert f"port {port} is taken" in done.stderr


def test_a_bad_policies_file_names_file_and_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('[[policy]]\nname = "a/b"\nbaseline = { model = "large" }\n\n[policy.knobs]\nmodel = ["small"]\n')
    done = steersman("up", "--port", "0", "--http-port", "0", "--policies", str(bad), home=tmp_path)
    assert done.returncode == 2
    assert "bad.toml" in done.stderr
    assert "line 3" in done.stderr or ":3" in done.stderr


def test_kafka_without_java_says_what_to_install(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "dirname", "readlink"):
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    done = steersman("up", "--kafka", "--port", "0", "--http-port", "0", home=tmp_path, PATH=str(tools))
    assert done.returncode == 2
    assert "openjdk" in done.stderr


def test_usage_errors_exit_2(tmp_path: Path) -> None:
    assert steersman("sql", home=tmp_path).returncode == 2
    assert steersman("no-such-command", home=tmp_path).returncode == 2


def test_a_price_table_is_checked_and_shown(tmp_path: Path) -> None:
    done = steersman("prices", "check", "example", "--json", home=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["without_source"] == []
    done = steersman("prices", "show", "gpt-4.1", "--json", home=tmp_path)
    assert json.loads(done.stdout)["cached_input"] == "0.50"
    table = tmp_path / "prices.toml"
    table.write_text('[[model]]\nprovider = "p"\nnames = ["m"]\nfrom = 2025-01-01\ninput = -1\n')
    done = steersman("prices", "check", str(table), home=tmp_path)
    assert done.returncode == 2
    assert "model[0].input" in done.stderr
    assert "Traceback" not in done.stderr
