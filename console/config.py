"""`steersman config show`: every setting of every service, its value, and where that came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from console.output import out, print_json, print_rows
from serving.settings import SERVICES, known_names, masked, service_settings, unknown_names
from steersman.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Look at the settings of the services.")

OK, UNKNOWN = 0, 4


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
    kind = service_settings()[service]
    passed = {name: value for name, value in command_line.items() if name in kind.model_fields}
    try:
        settings = kind.read(**passed)
    except ConfigError as error:
        raise ConfigError(f"the {service} refuses to start: {error}") from error
    return [(service, name, masked(getattr(settings, name)), kind.origin(name, passed)) for name in kind.model_fields]
