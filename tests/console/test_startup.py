"""What a process loads before it does anything: a command pays for it each time, `--help` and completion too."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from console.children import ROOT

NUMERIC = ("scipy", "river", "faust")
"""River's metrics, detectors and bandits bring `scipy.stats` along: more than a second of CPU, which only learners need."""
COMMANDS = (
    *NUMERIC,
    "aiohttp",
    "aiokafka",
    "chdb",
    "clickhouse_connect",
    "cryptography",
    "jinja2",
    "learners",
    "msgspec",
    "tomlkit",
)
"""Needed by some commands when they run, and by none to be listed, explained or completed."""


def modules_of(module: str) -> set[str]:
    """Modules that a fresh interpreter has loaded once it has imported one."""
    code = f"import json, sys; import {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT
    )
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert module in modules
    return modules


def packages_of(module: str) -> set[str]:
    """Top-level packages of `modules_of`."""
    return {name.partition(".")[0] for name in modules_of(module)}


@pytest.mark.parametrize("package", COMMANDS)
def test_what_is_kept_out_is_installed(package: str) -> None:
    assert (
        package in sys.modules or importlib.util.find_spec(package) is not None
    )  # faust takes its spec away once it is loaded


def test_the_command_line_loads_no_work() -> None:
    assert not packages_of("console.main") & set(COMMANDS)


@pytest.mark.parametrize("command", ["console.sql", "console.status", "console.policy", "learners.policies_file"])
def test_commands_that_only_look_load_no_learner(command: str) -> None:
    assert not packages_of(command) & set(NUMERIC)


@pytest.mark.parametrize("service", ["sinks", "doors", "page", "console.gateway"])
def test_services_that_do_not_learn_load_nothing_that_learns(service: str) -> None:
    assert not packages_of(f"{service}.__main__") & set(NUMERIC)


@pytest.mark.parametrize(
    "learner", ["learners.policy_learner", "learners.squarecb", "learners.thompson", "streams.detect.catalog"]
)
def test_learners_and_detectors_load_statistics_when_they_are_made(learner: str) -> None:
    assert "scipy.stats" not in modules_of(learner)
