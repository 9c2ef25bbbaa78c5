"""The commands of `steersman prices`."""

from __future__ import annotations

from typing import Annotated

import typer

from console import prices as prices_view
from console.options import Json

app = typer.Typer(no_args_is_help=True, help="Look at the price table by which calls are costed.")

PriceFile = Annotated[
    str, typer.Argument(envvar="STEERSMAN_PRICES", help="Price table (TOML); 'example' is the one shipped.")
]


@app.command("check", epilog="Examples: steersman prices check my-prices.toml · steersman prices check example --json")
def prices_check(file: PriceFile = "example", as_json: Json = False) -> None:
    """Check a price table, and say what in it is no longer or not yet in force. Exit 2 when it is unusable."""
    prices_view.check(file, as_json=as_json)


@app.command("show", epilog="Example: steersman prices show claude-sonnet-4-5 --table my-prices.toml")
def prices_show(
    name: Annotated[str, typer.Argument(help="Model or tool, as in the events' operation.")],
    table: Annotated[
        str, typer.Option(envvar="STEERSMAN_PRICES", help="Price table (TOML); 'example' is the one shipped.")
    ] = "example",
    as_json: Json = False,
) -> None:
    """Show the prices of a model or tool, by date."""
    prices_view.show(name, table, as_json=as_json)
