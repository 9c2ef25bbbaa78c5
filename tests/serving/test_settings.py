"""What no service knows is refused when a service starts, and said with its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from console.gateway.__main__ import main as gateway
from doors.__main__ import main as doors
from page.__main__ import main as page
from serving.settings import VARIABLES, ServiceSettings, refuse_unknown, service_settings, unknown_names
from sinks.__main__ import main as sinks
from steersman.errors import ConfigError
from streams.__main__ import main as streams

STARTS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "worker": (streams, ["worker"]),
    "topics": (streams, ["topics"]),
    "sink": (sinks, ["run"]),
    "migrate": (sinks, ["migrate"]),
    "doors": (doors, []),
    "page": (page, []),
    "gateway": (gateway, ["--path", "nowhere", "--no-login"]),
}


WITH_BROKERS = [service for service, kind in service_settings().items() if "brokers" in kind.model_fields]


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The settings file; the environment says nothing else."""
    for name in [name for name in os.environ if name.upper().startswith("STEERSMAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STEERSMAN_CONFIG", str(tmp_path / "steersman.toml"))
    (tmp_path / "steersman.toml").write_text("")
    return tmp_path / "steersman.toml"


@pytest.mark.parametrize("process", STARTS)
def test_no_process_starts_with_an_unknown_variable_or_key(
    process: str, file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    main, arguments = STARTS[process]
    monkeypatch.setenv("STEERSMAN_SINK_FLUSHS", "1")
    assert main(arguments) == 2
    said = capfd.readouterr().err
    assert "variable STEERSMAN_SINK_FLUSHS is known to no service; did you mean STEERSMAN_SINK_FLUSH_S?" in said
    monkeypatch.delenv("STEERSMAN_SINK_FLUSHS")
    file.write_text('# ours\nbrokers = "k:1"\nsink_flushs = 1\n')
    assert main(arguments) == 2
    assert f"{file}:3: sink_flushs is known to no service; did you mean sink_flush_s?" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[sink]\nflush_s = 1", 1),
        ("\n'broker' = 1", 2),
        ('brokers = "k:1"\nbroker.list = 1', 2),
        ("[[broker]]\nx = 1", 1),
    ],
)
def test_tables_and_quoted_keys_have_their_line(text: str, line: int, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"steersman\.toml:{line}: "):
        refuse_unknown()


def test_a_later_release_s_variable_may_be_let_pass_but_no_key(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEERSMAN_OF_THE_NEXT_RELEASE", "1")
    monkeypatch.setenv("STEERSMAN_UNKNOWN_SETTINGS", "warn")
    refuse_unknown()
    file.write_text("of_the_next_release = 1")
    with pytest.raises(ConfigError, match="of_the_next_release"):
        refuse_unknown()
    monkeypatch.setenv("STEERSMAN_UNKNOWN_SETTINGS", "maybe")
    with pytest.raises(ConfigError, match="'refuse' or 'warn'"):
        refuse_unknown()


def test_service_links_of_kubernetes_are_nobody_s_misspelling(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("SINK_SERVICE_HOST", "10.0.0.1"),
        ("SINK_SERVICE_PORT", "9465"),
        ("SINK_SERVICE_PORT_METRICS", "9465"),
        ("SINK_PORT", "tcp://10.0.0.1:9465"),
        ("SINK_PORT_9465_TCP", "tcp://10.0.0.1:9465"),
        ("SINK_PORT_9465_TCP_ADDR", "10.0.0.1"),
    ):
        monkeypatch.setenv(f"STEERSMAN_{name}", value)
    assert unknown_names() == {}
    monkeypatch.setenv("STEERSMAN_SINK_PORT", "9465")
    assert unknown_names().keys() == {"STEERSMAN_SINK_PORT"}


@pytest.mark.parametrize("service", WITH_BROKERS)
def test_command_line_over_environment_over_file_over_default(
    service: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = service_settings()[service]

    def brokers(**given: str | None) -> tuple[str, str]:
        passed = {name: value for name, value in given.items() if value is not None}
        return kind.load(**given).model_dump()["brokers"], kind.origin("brokers", passed)

    assert brokers(brokers=None) == ("127.0.0.1:9092", "default")
    file.write_text('# one for all\nbrokers = "file:1"')
    assert brokers() == ("file:1", f"file {file}:2")
    monkeypatch.setenv("STEERSMAN_BROKERS", "env:2")
    assert brokers() == ("env:2", "environment STEERSMAN_BROKERS")
    assert brokers(brokers="line:3") == ("line:3", "command line")


@pytest.mark.parametrize("service", WITH_BROKERS)
def test_a_value_that_cannot_be_used_is_named_with_its_origin_and_never_shown(
    service: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = service_settings()[service]
    number = next(
        name
        for name in ("partitions", "sink_flush_rows", "doors_max_spans", "page_window_s")
        if name in kind.model_fields
    )
    file.write_text(f"\n{number} = 'hush'")
    with pytest.raises(ConfigError, match=rf"{number}: .*\(file .*:2\)") as refused:
        kind.load()
    assert "hush" not in str(refused.value)
    file.write_text("")
    monkeypatch.setenv(f"STEERSMAN_{number.upper()}", "hush")
    with pytest.raises(ConfigError, match=rf"{number}: .*\(environment STEERSMAN_{number.upper()}\)"):
        kind.load()


def test_every_service_is_of_one_tree(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: dict[str, object] = {}
    for kind in service_settings().values():
        assert issubclass(kind, ServiceSettings)
        assert kind.model_config["env_prefix"] == "STEERSMAN_"
        for name, field in kind.model_fields.items():
            # One file and one environment serve all services: a name means one thing.
            assert shared.setdefault(name, field.annotation) == field.annotation, name
    for name in VARIABLES:
        if name not in ("STEERSMAN_CONFIG", "STEERSMAN_UNKNOWN_SETTINGS"):
            monkeypatch.setenv(name, "x")
    refuse_unknown()
