"""The commands of `steersman policy`; those that change a policy's life are in `console.life`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from console.life.commands import app as life
from console.options import Brokers, ClickHouse, Json, Tenant
from console.target import resolve

app = typer.Typer(no_args_is_help=True, help="Look at the policies agents decide by, and operate them.")
app.add_typer(life)


class Component(StrEnum):
    """What can be traded for quality."""

    cost = "cost"
    latency = "latency"
    failures = "failures"


@app.command("list", epilog="Example: steersman policy list")
def policy_list(brokers: Brokers = None, tenant: Tenant = "default", as_json: Json = False) -> None:
    """List the newest snapshot of every policy."""
    from console import policy as policies_view

    policies_view.show_all(resolve(brokers), tenant, as_json=as_json)


@app.command("show", epilog="Example: steersman policy show research/retrieval")
def policy_show(
    name: Annotated[str, typer.Argument(help="Policy, e.g. research/retrieval.")],
    brokers: Brokers = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Show one policy: version, arms with their estimated utility and probability for an average context, and what each level adds."""
    from console import policy as policies_view

    policies_view.show_one(resolve(brokers), tenant, name, as_json=as_json)


@app.command(
    "front",
    epilog="Examples: steersman policy front research/synthesis · steersman policy front research/synthesis --by latency "
    "--ceiling 2000000 --json",
)
def policy_front(
    name: Annotated[str, typer.Argument(help="Policy, e.g. research/synthesis.")],
    by: Annotated[Component, typer.Option(help="What is traded for quality.")] = Component.cost,
    ceiling: Annotated[
        float | None, typer.Option(min=0, help="Also the best fixed mix that spends no more; micro-USD, microseconds.")
    ] = None,
    brokers: Brokers = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Show what quality is to be had for what cost or latency: all arms, and the Pareto front of their mixtures."""
    from console import policy as policies_view

    policies_view.show_front(resolve(brokers), tenant, name, by.value, ceiling, as_json=as_json)


@app.command(
    "prior",
    epilog="Examples: steersman policy prior --file evals.csv --knob model >> policies.toml · steersman policy prior research/synthesis --events 50",
)
def policy_prior(
    name: Annotated[
        str | None, typer.Argument(help="Policy that has learned already, e.g. research/retrieval.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a policy, an evaluation: CSV, a row for each answer, with the columns KNOB, quality, and cost_micro_usd and "
            "latency_us where they are known."
        ),
    ] = None,
    knob: Annotated[str, typer.Option(help="Knob that the file's answers differ by.")] = "model",
    events: Annotated[
        float | None,
        typer.Option(
            min=1e-9,
            help="Rewards that a level's mean is to be worth; 20 of a policy, of a file its answers per level.",
        ),
    ] = None,
    brokers: Brokers = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Print a policy.prior table, by which a new policy starts from what is known of its levels instead of from nothing."""
    if (name is None) == (file is None):
        raise typer.BadParameter("name a policy, or give --file")
    from console import prior as prior_view

    if file is not None:
        prior_view.of_file(file, knob, events, as_json=as_json)
    elif name is not None:
        prior_view.of_policy(resolve(brokers), tenant, name, events, as_json=as_json)


@app.command("events", epilog="Example: steersman policy events research/retrieval --json")
def policy_events(
    name: Annotated[str, typer.Argument(help="Policy, e.g. research/retrieval.")],
    limit: Annotated[int, typer.Option(min=1, help="Newest so many events.")] = 20,
    clickhouse: ClickHouse = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """List what the guard did with a policy and why: promotions and rollbacks with their evidence."""
    from console import policy as policies_view

    policies_view.show_events(resolve(None, clickhouse), tenant, name, limit, as_json=as_json)


@app.command("keygen", epilog="Example: steersman policy keygen --out keys --name 2026-11")
def policy_keygen(
    folder: Annotated[
        Path, typer.Option("--out", help="Folder for the two files; made when it does not exist.")
    ] = Path(),
    name: Annotated[str, typer.Option(help="Name of the two files: NAME.key and NAME.pub.")] = "policy",
    as_json: Json = False,
) -> None:
    """Make a pair of Ed25519 keys: learners sign policies with one, agents check them with the other. Neither is printed."""
    from console import signatures as signatures_run

    signatures_run.keygen(folder, name, as_json=as_json)


@app.command("verify", epilog="Example: steersman policy verify --key keys/2026-11.pub")
def policy_verify(
    key: Annotated[
        list[Path] | None,
        typer.Option(help="File with a public key to trust; repeat it. STEERSMAN_POLICY_KEYS by default."),
    ] = None,
    brokers: Brokers = None,
    as_json: Json = False,
) -> None:
    """Check who signed the published policies. Exit 4 when a policy's newest record is not signed by a trusted key."""
    from console import signatures as signatures_run

    raise typer.Exit(signatures_run.verify(resolve(brokers), key or (), as_json=as_json))
