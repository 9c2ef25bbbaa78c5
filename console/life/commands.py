"""The commands of `steersman policy` that change a policy's life, and those that say how it came about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.options import DEFAULT_POLICIES, Brokers, ClickHouse, Json, Tenant
from console.target import resolve

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Policy, e.g. research/retrieval.")]
Why = Annotated[str | None, typer.Option("--why", help="The reason, kept with the act; asked for when left out.")]
Who = Annotated[str, typer.Option("--who", help="Who wants it; user@host by default.")]
Expect = Annotated[
    str,
    typer.Option(
        "--expect",
        help="Only if the policy stands so by then: retired, frozen, pinned, apprentice, shadow, canary or live.",
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.5, help="Longest wait for the learner's answer; seconds.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would become of it.")]

_PLAIN = {
    "unpin": ("UNPIN", "Let agents have what is learned again, after a pin."),
    "freeze": ("FREEZE", "Publish what was learned so far and nothing more; learning goes on."),
    "unfreeze": ("UNFREEZE", "Publish again, after a freeze."),
    "promote": ("PROMOTE", "Go to the next stage whatever the evidence: shadow, canary share by share, live."),
    "retire": ("RETIRE", "Tell agents to use their baseline, for good; 'restore' undoes it."),
    "restore": ("RESTORE", "Undo a retirement: the policy stands as it did before."),
}


def _plain(command: str, act: str, text: str) -> None:
    def run(
        name: Name,
        why: Why = None,
        who: Who = "",
        expect: Expect = "",
        timeout: Timeout = 30.0,
        dry_run: DryRun = False,
        brokers: Brokers = None,
        tenant: Tenant = "default",
        as_json: Json = False,
    ) -> None:
        from console.life.acting import Wish, perform, reason

        wish = Wish(tenant, name, act, "" if dry_run and not why else reason(why), who, expected=expect)
        raise typer.Exit(perform(resolve(brokers), wish, timeout, dry_run=dry_run, as_json=as_json))

    run.__doc__ = f"{text} Exit 4 when the learner refuses."
    example = f'steersman policy {command} research/retrieval --why "incident 4711"'
    app.command(command, epilog=f"Examples: {example} · steersman policy {command} research/retrieval --dry-run")(run)


for _command, (_act, _text) in _PLAIN.items():
    _plain(_command, _act, _text)


@app.command(
    "pin",
    epilog='Examples: steersman policy pin research/retrieval 1.2400 --why "the new judge is off" · steersman policy pin '
    "research/retrieval 1.2400 --dry-run",
)
def pin(
    name: Name,
    version: Annotated[str, typer.Argument(help="EPOCH.VERSION, or a version of the present epoch; see 'history'.")],
    why: Why = None,
    who: Who = "",
    expect: Expect = "",
    timeout: Timeout = 30.0,
    dry_run: DryRun = False,
    brokers: Brokers = None,
    clickhouse: ClickHouse = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Let agents have the weights of an earlier version, while learning goes on unseen. Exit 4 when the learner refuses."""
    from console.life.acting import Wish, perform, reason

    wish = Wish(tenant, name, "PIN", "" if dry_run and not why else reason(why), who, version, expect)
    raise typer.Exit(perform(resolve(brokers, clickhouse), wish, timeout, dry_run=dry_run, as_json=as_json))


@app.command(
    "rollback",
    epilog='Examples: steersman policy rollback research/retrieval --why "answers got worse" · steersman policy rollback '
    'research/retrieval --to 1.2400 --why "the last good one"',
)
def rollback(
    name: Name,
    to: Annotated[
        str, typer.Option("--to", help="EPOCH.VERSION to go back to, as pin does; without it the baseline decides.")
    ] = "",
    why: Why = None,
    who: Who = "",
    expect: Expect = "",
    timeout: Timeout = 30.0,
    dry_run: DryRun = False,
    brokers: Brokers = None,
    clickhouse: ClickHouse = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Take a policy back: to shadow, where the baseline decides (a guarded one with its cooldown), or to an earlier version. Ends a
    freeze. Exit 4 when the learner refuses."""
    from console.life.acting import Wish, perform, reason

    wish = Wish(tenant, name, "ROLLBACK", "" if dry_run and not why else reason(why), who, to, expect)
    raise typer.Exit(perform(resolve(brokers, clickhouse), wish, timeout, dry_run=dry_run, as_json=as_json))


@app.command("history", epilog="Example: steersman policy history research/retrieval --limit 20")
def policy_history(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, help="Newest so many versions, and acts.")] = 20,
    clickhouse: ClickHouse = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """List the versions of a policy that were published, and what operators did to it, newest first."""
    from console.life import history

    history.show(resolve(None, clickhouse), tenant, name, limit, as_json=as_json)


@app.command(
    "diff",
    epilog="Examples: steersman policy diff research/retrieval 1.2400 now · steersman policy diff research/retrieval 1.2400 2.10 --json",
)
def diff(
    name: Name,
    old: Annotated[str, typer.Argument(help="EPOCH.VERSION, or a version of the present epoch.")],
    new: Annotated[str, typer.Argument(help="The other one; 'now' is what agents have.")] = "now",
    brokers: Brokers = None,
    clickhouse: ClickHouse = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Show what changed between two versions: settings, arms, shares of levels, and the weights that moved most."""
    from console.life import history

    history.show_diff(resolve(brokers, clickhouse), tenant, name, old, new, as_json=as_json)


@app.command(
    "explain",
    epilog="Examples: steersman policy explain 4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7 · steersman policy explain <id> --json",
)
def policy_explain(
    decision: Annotated[str, typer.Argument(help="Decision id: <trace id>-<span id>.")],
    policies: Annotated[
        Path,
        typer.Option(
            "--policies", envvar="STEERSMAN_POLICIES", help="The policies file, to learn again what is no longer kept."
        ),
    ] = DEFAULT_POLICIES,
    brokers: Brokers = None,
    clickhouse: ClickHouse = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Explain a decision: what was eligible, the probability computed again, features x weights, which version and stage, why it
    explored. Exit 4 when the probability does not come out as logged."""
    from console.life import explaining

    raise typer.Exit(explaining.show(resolve(brokers, clickhouse), tenant, decision, policies, as_json=as_json))
