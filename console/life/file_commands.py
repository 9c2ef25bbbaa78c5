"""The commands `steersman plan` and `steersman apply`; what they do is in `console.life.planning`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.options import DEFAULT_POLICIES, Brokers, Json
from console.target import resolve

Running = Annotated[
    Path, typer.Option("--policies", envvar="STEERSMAN_POLICIES", help="The policies file that the workers follow.")
]


def plan(
    candidate: Annotated[
        Path | None,
        typer.Option("--policy-file", help="The file as it is to be; the workers' own by default, to check it."),
    ] = None,
    running: Running = DEFAULT_POLICIES,
    brokers: Brokers = None,
    as_json: Json = False,
) -> None:
    """Show what a policies file would change: live at once, a new epoch and what it keeps, or refused and why. Changes nothing. Exit 4
    when something is refused."""
    from console.life import planning

    raise typer.Exit(planning.show(resolve(brokers), candidate or running, running, as_json=as_json))


def apply(
    candidate: Annotated[Path, typer.Argument(help="The file as it is to be.")],
    running: Running = DEFAULT_POLICIES,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    brokers: Brokers = None,
    as_json: Json = False,
) -> None:
    """Show the plan, then put the candidate in the place of the workers' policies file, at once and whole; they take it over while they
    run. Exit 4, with nothing changed, when something is refused or nobody agrees."""
    from console.life import planning

    raise typer.Exit(planning.put_in_place(resolve(brokers), candidate, running, yes=yes, as_json=as_json))
