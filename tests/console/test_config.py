"""Where each setting comes from, as the services read it, and what no service knows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from console.config import app
from console.target import resolve
from page.settings import load_settings as page_settings
from serving.settings import VARIABLES
from sinks.settings import load_settings
from steersman.errors import ConfigError
from streams.settings import StreamSettings

TOML = 'brokers = "file:1"\nsink_flush_s = 3.5\ntick_interval_s = 0.5\nclickhouse_url = "http://u:hidden@ch:8123"\n'


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.upper().startswith("STEERSMAN_")]:
        monkeypatch.delenv(name)
    (tmp_path / "steersman.toml").write_text(TOML)
    monkeypatch.setenv("STEERSMAN_CONFIG", str(tmp_path / "steersman.toml"))
    monkeypatch.setenv("STEERSMAN_HOME", str(tmp_path))
    return monkeypatch


def shown(*args: str, code: int = 0) -> tuple[dict[tuple[str, str], tuple[Any, str]], dict[str, str]]:
    done = CliRunner().invoke(app, ["show", "--json", *args])
    assert done.exit_code == code, done.exception
    found = json.loads(done.stdout)
    return {(s["service"], s["setting"]): (s["value"], s["origin"]) for s in found["settings"]}, found["unknown"]


def test_command_line_over_environment_over_file_over_default(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = f"file {tmp_path / 'steersman.toml'}"
    settings, unknown = shown()
    assert unknown == {}
    for service in ("worker", "sink", "doors", "page"):
        assert settings[service, "brokers"] == ("file:1", f"{file}:1")
    assert settings["worker", "tick_interval_s"] == (0.5, f"{file}:3")
    assert settings["sink", "sink_flush_rows"] == (50_000, "default")
    environment.setenv("STEERSMAN_BROKERS", "env:2")
    settings, _ = shown("--set", "sink_flush_s=7")
    assert settings["sink", "brokers"] == ("env:2", "environment STEERSMAN_BROKERS")
    assert settings["sink", "sink_flush_s"] == (7.0, "command line")
    # What is shown is what services and console take.
    assert StreamSettings().brokers == "env:2"
    assert StreamSettings(brokers="line:3").brokers == "line:3"
    assert StreamSettings().tick_interval_s == 0.5
    assert load_settings().sink_flush_s == 3.5
    assert resolve().brokers == "env:2"
    assert resolve().clickhouse == "http://u:hidden@ch:8123"


def test_secrets_are_masked(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("STEERSMAN_DOORS_TOKEN", "hush-hush-hush-hush-hush-hush-hush")
    environment.setenv("STEERSMAN_REGISTRY_URL", "http://me:hidden@registry:8081")
    for args in (["show", "--json"], ["show"]):
        done = CliRunner().invoke(app, args)
        assert done.exit_code == 0
        assert "hush" not in done.stdout
        assert "hidden" not in done.stdout
    settings, _ = shown()
    assert settings["doors", "doors_token"][0] == "***"
    assert settings["worker", "registry_url"][0] == "http://me:***@registry:8081"


def test_the_live_page_reads_the_file_and_its_variables_are_known(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("STEERSMAN_PAGE_TOKEN", "hush-hush-hush-hush-hush-hush-hush")
    settings, unknown = shown()
    assert unknown == {}
    assert settings["page", "page_token"] == ("***", "environment STEERSMAN_PAGE_TOKEN")
    assert settings["page", "brokers"] == ("file:1", f"file {tmp_path / 'steersman.toml'}:1")
    assert page_settings().brokers == "file:1"


def test_what_nobody_knows_is_named(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("STEERSMAN_BROKER", "x")
    (tmp_path / "steersman.toml").write_text(TOML + "sink_flush_sec = 1\n")
    _, unknown = shown(code=4)
    assert unknown == {"STEERSMAN_BROKER": "STEERSMAN_BROKERS", "sink_flush_sec": "sink_flush_s"}
    for name in VARIABLES:
        environment.setenv(name, os.environ.get(name, ""))
    assert shown(code=4)[1] == unknown


def test_a_file_that_cannot_be_used_is_named(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text, says in (("brokers =", "is not TOML"), ("partitions = 0", "partitions")):
        (tmp_path / "steersman.toml").write_text(text)
        done = CliRunner().invoke(app, ["show"])
        assert isinstance(done.exception, ConfigError)
        assert says in str(done.exception)
    environment.setenv("STEERSMAN_CONFIG", str(tmp_path / "nowhere.toml"))
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read"):
        StreamSettings()
    done = CliRunner().invoke(app, ["show", "--set", "nonsense=1"])
    assert isinstance(done.exception, ConfigError)
