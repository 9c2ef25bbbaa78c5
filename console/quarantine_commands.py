"""The commands of `steersman quarantine`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from console.options import DEFAULT_POLICIES, Brokers, Json, PoliciesFile, Tenant
from console.target import resolve

Source = Annotated[
    str, typer.Argument(help="The source as feedback names it, or '#' and the 16 hex digits of a learner's state.")
]
Policy = Annotated[list[str] | None, typer.Option("--policy", help="Only this policy; may be given several times.")]
Reason = Annotated[str, typer.Option(help="Why; kept beside the source in the file.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; learn from the log both ways and show what would change.")
]
Wait = Annotated[
    float,
    typer.Option("--wait", min=0, help="Seconds to wait for the policies to be published anew; exit 4 after that."),
]


class _Group(TyperGroup):
    """``quarantine SOURCE`` is ``quarantine add SOURCE``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put ``add`` in front of what is no command."""
        known = args and (args[0] in self.commands or args[0].startswith("-"))
        return super().resolve_command(ctx, args if known else ["add", *args])


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    help="Learn policies again without a source of feedback: 'quarantine SOURCE' is 'quarantine add SOURCE'.",
    epilog="Examples: steersman quarantine user-7 --reason 'always 1' --dry-run · steersman quarantine list --json",
)


@app.command(
    epilog="Examples: steersman quarantine user-7 --policy research/retrieval --reason 'always 1' --wait 60 · ... --dry-run --json"
)
def add(
    source: Source,
    policy: Policy = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    wait: Wait = 0.0,
    file: PoliciesFile = DEFAULT_POLICIES,
    brokers: Brokers = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Put a source in quarantine: nothing that it says, or ever said, is believed. Changes the policies file, which workers follow."""
    from console import quarantine as run

    act = run.Act(source, tenant, tuple(policy or ()), file, reason=reason)
    raise typer.Exit(run.run(resolve(brokers), act, dry_run=dry_run, wait_s=wait, as_json=as_json))


@app.command(epilog="Example: steersman quarantine lift user-7 --policy research/retrieval")
def lift(
    source: Source,
    policy: Policy = None,
    dry_run: DryRun = False,
    wait: Wait = 0.0,
    file: PoliciesFile = DEFAULT_POLICIES,
    brokers: Brokers = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Believe a source again, also in what it has said before."""
    from console import quarantine as run

    act = run.Act(source, tenant, tuple(policy or ()), file, lift=True)
    raise typer.Exit(run.run(resolve(brokers), act, dry_run=dry_run, wait_s=wait, as_json=as_json))


@app.command("list", epilog="Example: steersman quarantine list --json")
def show(file: PoliciesFile = DEFAULT_POLICIES, tenant: Tenant = "default", as_json: Json = False) -> None:
    """List who is in quarantine, where, and why."""
    from console import quarantine as run

    run.show(tenant, file, as_json=as_json)
