"""The commands of `steersman`.

Every command pays for what this module imports, `--help` and completion too: the work is imported by the command that does it, when
it runs (tests/console/test_startup.py).
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from console.acl import app as acl
from console.asking import app as asking
from console.config import app as config
from console.dlq.commands import app as dlq
from console.doctor.command import doctor
from console.forget.command import forget
from console.life.file_commands import apply, plan
from console.options import DEFAULT_POLICIES, Brokers, ClickHouse, Json, PoliciesFile, Tenant
from console.output import err, out, print_json, print_rows
from console.policy_commands import app as policy
from console.price_commands import app as prices
from console.quarantine_commands import app as quarantine
from console.target import resolve
from console.tenants.command import app as tenants
from serving.settings import refuse_unknown

app = typer.Typer(
    name="steersman",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Closes the loop for fleets of LLM agents: traces in, rewards, learning, policies out.",
    epilog="Addresses: command line, then STEERSMAN_BROKERS and STEERSMAN_CLICKHOUSE_URL, then a running 'steersman up' or demo.",
)
trace = typer.Typer(no_args_is_help=True, help="Look at traces as they pass.")
app.add_typer(trace, name="trace")
app.add_typer(policy, name="policy")
app.command(
    epilog="Examples: steersman plan --policy-file candidate.toml · steersman plan --policy-file candidate.toml --json"
)(plan)
app.command(
    epilog="Examples: steersman apply candidate.toml · steersman apply candidate.toml --policies live.toml --yes"
)(apply)
app.add_typer(prices, name="prices")
app.add_typer(dlq, name="dlq")
app.add_typer(acl, name="acl")
app.add_typer(quarantine, name="quarantine")
app.add_typer(config, name="config")
app.add_typer(tenants, name="tenants")
app.add_typer(asking)
app.command(epilog="Examples: steersman doctor · steersman doctor --probe --json")(doctor)
app.command(
    epilog="Examples: steersman forget --user u-4711 --dry-run · steersman forget --user u-4711 --tenant acme --yes · "
    "steersman forget --session s-9 · steersman forget --tenant acme"
)(forget)


def _version(wanted: bool) -> None:
    if wanted:
        from steersman import __version__

        out.print(f"steersman {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Closes the loop for fleets of LLM agents."""
    # These two look at the settings, and say more about what is wrong with them.
    if context.invoked_subcommand not in ("config", "doctor"):
        refuse_unknown()


@app.command(epilog="Examples: steersman demo · steersman demo --seconds 60 --json · steersman demo --kafka --keep")
def demo(
    seconds: Annotated[int, typer.Option(min=10, help="How long the fleet and the replay run.")] = 110,
    rate: Annotated[float, typer.Option(min=1, help="Interactions of the fleet per second.")] = 50.0,
    seed: Annotated[int, typer.Option(help="Seed of the fleet's world and of the replay's order.")] = 1,
    kafka: Annotated[
        bool,
        typer.Option("--kafka", help="Apache Kafka (needs Java and Maven) instead of the embedded broker."),
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running until Ctrl-C, to look around.")] = False,
    file: PoliciesFile = DEFAULT_POLICIES,
    as_json: Json = False,
) -> None:
    """Watch a fleet of agents get faster and cheaper, and real routing data replayed through the same loop."""
    from console import demo as demo_run

    settings = demo_run.DemoSettings(
        seconds=seconds, rate=rate, seed=seed, kafka=kafka, keep=keep, policies=file, as_json=as_json
    )
    raise typer.Exit(demo_run.run(settings))


@app.command(
    epilog="Examples: steersman up · steersman up --kafka · steersman up --brokers k1:9092 --clickhouse http://ch:8123"
)
def up(
    kafka: Annotated[
        bool,
        typer.Option("--kafka", help="Apache Kafka (needs Java and Maven) instead of the embedded broker."),
    ] = False,
    brokers: Brokers = None,
    clickhouse: ClickHouse = None,
    port: Annotated[int, typer.Option(help="Port of the broker we start; 0 takes a free one.")] = 9092,
    http_port: Annotated[
        int, typer.Option(help="Port of the ClickHouse endpoint we start; 0 takes a free one.")
    ] = 8123,
    doors_port: Annotated[
        int, typer.Option(help="Port of the doors, OTLP/HTTP and feedback (docs/doors.md); 0 takes a free one.")
    ] = 4318,
    page_port: Annotated[int, typer.Option(help="Port of the live page (docs/page.md); 0 takes a free one.")] = 8500,
    file: PoliciesFile = DEFAULT_POLICIES,
    as_json: Json = False,
) -> None:
    """Run the stack on this machine until Ctrl-C: broker, ClickHouse endpoint, stream worker, sink, doors, live page."""
    from console.brokers import require_broker
    from console.stack import Stack
    from sinks.clickhouse import shown

    if brokers:
        require_broker(brokers)
    with Stack(
        "up",
        file,
        kafka=kafka,
        brokers=brokers,
        clickhouse=clickhouse,
        port=port,
        http_port=http_port,
        doors_port=doors_port,
        page_port=page_port,
    ) as stack:
        stack.start(lambda step: err.print(f"{step} ..."))
        if as_json:
            addresses = {
                "brokers": stack.brokers,
                "clickhouse": shown(stack.clickhouse),
                "clickhouse_users": str(stack.users),
                "doors": stack.doors,
                "page": stack.page,
            }
            print_json({**addresses, "monitors": stack.monitors, "logs": str(stack.logs)})
        else:
            out.print(
                f"ready. live page {stack.page}, brokers {stack.brokers}, ClickHouse {stack.store}, doors (OTLP, feedback) {stack.doors}, logs in {stack.logs}. Ctrl-C stops everything."
            )
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                stack.check()
                time.sleep(0.5)
    err.print("stopped")


@app.command(epilog="Example: steersman status --json")
def status(
    brokers: Brokers = None, clickhouse: ClickHouse = None, tenant: Tenant = "default", as_json: Json = False
) -> None:
    """Show whether the parts answer, how far consumers lag, what is stored, and the policies' versions. Exit 4 when a part is missing."""
    from console import status as status_view

    raise typer.Exit(status_view.show(resolve(brokers, clickhouse), tenant, as_json=as_json))


@app.command(epilog="Example: steersman topics --create --partitions 12")
def topics(
    create: Annotated[bool, typer.Option("--create", help="Create the ones that are missing.")] = False,
    partitions: Annotated[
        int, typer.Option(min=1, help="Partitions of the trace and reward topics when created.")
    ] = 12,
    brokers: Brokers = None,
    as_json: Json = False,
) -> None:
    """List the topics with partitions, sizes and settings."""
    from console import status as status_view
    from console.brokers import require_broker
    from steersman.topics import Topics
    from streams.topics import create_topics

    target = resolve(brokers)
    require_broker(target.brokers)
    names = Topics(target.prefix)
    if create:
        create_topics(target.brokers, names, partitions)
    status_view.show_topics(target.brokers, names, as_json=as_json)


@app.command(epilog="Example: steersman migrate --dry-run")
def migrate(
    clickhouse: ClickHouse = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run.")] = False,
    as_json: Json = False,
) -> None:
    """Bring the ClickHouse tables and views up to date."""
    from sinks.clickhouse import connect
    from sinks.migrations import migrate as run_migrations

    with contextlib.closing(connect(resolve(None, clickhouse).clickhouse)) as client:
        applied = run_migrations(client, dry_run=dry_run)
    rows = [(m, "would run" if dry_run else "applied") for m in applied]
    if as_json or rows:
        print_rows(["migration", "result"], rows, as_json=as_json)
    else:
        out.print("nothing to do: every migration is applied")


@app.command(
    epilog="Examples: steersman rebuild research/retrieval · steersman rebuild research/retrieval --epoch 1 --policies old.toml"
)
def rebuild(
    name: Annotated[str, typer.Argument(help="Policy, e.g. research/retrieval.")],
    epoch: Annotated[
        int | None,
        typer.Option(min=1, help="An old epoch, with the policies file of that time; the present one by default."),
    ] = None,
    brokers: Brokers = None,
    tenant: Tenant = "default",
    file: PoliciesFile = DEFAULT_POLICIES,
    as_json: Json = False,
) -> None:
    """Learn a policy again from the reward topic and compare it, bit by bit, with what is saved and published. Exit 4 when it differs."""
    from console import rebuild as rebuild_run

    raise typer.Exit(rebuild_run.run(resolve(brokers), tenant, name, file, epoch, as_json=as_json))


@app.command(
    epilog="Examples: steersman verify · steersman verify --from 2026-11-23T14:00 --to 2026-11-23T15:00 --json"
)
def verify(
    start: Annotated[
        str | None, typer.Option("--from", help="First minute, by Kafka timestamp: ISO 8601, UTC; else the whole log.")
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", help="Minute to stop before; else the end, or this minute while events keep coming."),
    ] = None,
    producer_ledger: Annotated[
        list[Path] | None,
        typer.Option(help="What a producer says it sent, as JSON lines; repeat it, and name those of all producers."),
    ] = None,
    wait_s: Annotated[float, typer.Option(min=0, help="Longest wait for workers and sink to catch up.")] = 60.0,
    file: PoliciesFile = DEFAULT_POLICIES,
    replay: Annotated[
        bool, typer.Option("--replay/--no-replay", help="Learn every policy of the policies file again from the log.")
    ] = True,
    brokers: Brokers = None,
    clickhouse: ClickHouse = None,
    as_json: Json = False,
) -> None:
    """Prove that nothing was lost or counted twice: recount the log, and compare with every stage and table. Exit 4 on a mismatch."""
    from console.verify import report as verify_report
    from console.verify.command import Request
    from console.verify.command import verify as run_verify
    from console.verify.replay import replay_policies
    from console.verify.span import parse_minute

    request = Request(
        start=None if start is None else parse_minute(start, "--from"),
        end=None if end is None else parse_minute(end, "--to"),
        ledgers=tuple(producer_ledger or ()),
        wait_s=wait_s,
    )
    target = resolve(brokers, clickhouse)

    def progress(step: str) -> None:
        err.print(step, highlight=False)

    replayed = partial(replay_policies, target, file, progress) if replay else None
    span, equations = run_verify(target, request, progress, replayed)
    raise typer.Exit(verify_report.show(span, equations, as_json=as_json))


@trace.command("tail", epilog="Example: steersman trace tail --kind DECISION --json | head")
def tail(
    kind: Annotated[str | None, typer.Option(help="Only this kind, e.g. DECISION or FEEDBACK.")] = None,
    trace_id: Annotated[str | None, typer.Option("--trace", help="Only this trace.")] = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start at the oldest event kept.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many events.")] = None,
    brokers: Brokers = None,
    as_json: Json = False,
) -> None:
    """Print trace events as they arrive."""
    from console import tail as tail_view
    from console.brokers import require_broker

    target = resolve(brokers)
    require_broker(target.brokers)
    with contextlib.suppress(KeyboardInterrupt):
        tail_view.run(target, kind=kind, trace_id=trace_id, from_beginning=from_beginning, limit=limit, as_json=as_json)
