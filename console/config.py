"""`steersman config show`: every setting of every service, its value, and where that came from."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from pydantic import SecretStr, ValidationError

from console.output import out, print_json, print_rows
from doors.settings import DoorSettings
from page.settings import PageSettings
from serving.settings import FILE_VARIABLE, ServiceSettings, settings_file
from sinks.settings import SinkSettings
from steersman.errors import ConfigError
from steersman.signing import KEYS_VARIABLE, MODE_VARIABLE
from streams.settings import StreamSettings

app = typer.Typer(no_args_is_help=True, help="Look at the settings of the services.")

OK, UNKNOWN = 0, 4
SERVICES: Mapping[str, type[ServiceSettings]] = {
    "worker": StreamSettings,
    "sink": SinkSettings,
    "doors": DoorSettings,
    "page": PageSettings,
}
PREFIX = "STEERSMAN_"
OTHERS = frozenset({FILE_VARIABLE, KEYS_VARIABLE, MODE_VARIABLE, "STEERSMAN_HOME", "STEERSMAN_FAULT_POINT"})
"""Variables that are no field of a service's settings."""

_PASSWORD = re.compile(r"(//[^/@:]*):[^/@]*@")


@app.callback()
def _root() -> None:
    """Look at the settings of the services."""


@app.command("show", epilog="Examples: steersman config show · steersman config show --set sink_flush_s=2 --json")
def show(
    given: Annotated[
        list[str] | None,
        typer.Option("--set", help="As if the service's command line said so: NAME=VALUE; repeat it for several."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")] = False,
) -> None:
    """Show every setting with its value and its origin: command line, environment, the TOML file of STEERSMAN_CONFIG, default.

    Secrets are masked. Exit 4 when a variable or a key of the file is known to no service.
    """
    command_line: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or name not in known_names():
            raise ConfigError(f"--set {text!r} is no setting: write NAME=VALUE, with a name that 'config show' lists")
        command_line[name] = value
    rows = [row for service in SERVICES for row in effective(service, command_line)]
    unknown = unknown_names()
    if as_json:
        columns = ("service", "setting", "value", "origin")
        print_json({"settings": [dict(zip(columns, row, strict=True)) for row in rows], "unknown": unknown})
    else:
        print_rows(["service", "setting", "value", "origin"], rows, as_json=False)
        for name, hint in unknown.items():
            said = f"{name} is known to no service{f'; did you mean {hint}?' if hint else ''}"
            out.print(said, style="red", markup=False, highlight=False)
    raise typer.Exit(UNKNOWN if unknown else OK)


def effective(service: str, command_line: Mapping[str, str]) -> list[tuple[str, str, Any, str]]:
    """Return (service, setting, value, origin) of every setting of a service.

    Raises
    ------
    ConfigError
        When the service would refuse to start.
    """
    kind = SERVICES[service]
    passed = {name: value for name, value in command_line.items() if name in kind.model_fields}
    try:
        settings = kind(**passed)
    except ValidationError as error:
        said = "; ".join(
            f"{'_'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors(include_input=False, include_url=False)
        )
        raise ConfigError(f"the {service} refuses to start: {said}") from error
    environment = {name.upper() for name in os.environ}
    file = settings_file()
    rows = []
    for name in kind.model_fields:
        if name in passed:
            origin = "command line"
        elif (variable := f"{PREFIX}{name}".upper()) in environment:
            origin = f"environment {variable}"
        elif name in file:
            origin = f"file {os.environ[FILE_VARIABLE]}"
        else:
            origin = "default"
        rows.append((service, name, masked(getattr(settings, name)), origin))
    return rows


def masked(value: Any) -> Any:
    """Return a value without what is secret in it."""
    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return _PASSWORD.sub(r"\1:***@", value) if isinstance(value, str) else value


def known_names() -> set[str]:
    """Return the names of all settings."""
    return {name for kind in SERVICES.values() for name in kind.model_fields}


def unknown_names() -> dict[str, str]:
    """Return variables and keys of the file that no service knows, each with the known name that is closest, or ''."""
    names = known_names()
    variables = {f"{PREFIX}{name}".upper() for name in names} | OTHERS
    found: dict[str, str] = {}
    for variable in sorted(os.environ):
        if variable.upper().startswith(PREFIX) and variable.upper() not in variables:
            found[variable] = next(iter(difflib.get_close_matches(variable.upper(), variables, 1)), "")
    for key in sorted(settings_file().keys() - names):
        found[key] = next(iter(difflib.get_close_matches(key, names, 1)), "")
    return found
