"""The commands that ask what happened, and what would have: `sql`, `export`, `ope`, `replay`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.options import DEFAULT_POLICIES, Brokers, ClickHouse, Json, PoliciesFile, Tenant
from console.target import resolve
from console.verify.span import parse_time
from sinks.export import TIMES
from sinks.fold import SETTLE_S

app = typer.Typer()


@app.command(epilog="""Example: steersman sql "SELECT policy, count() FROM v_rewards GROUP BY policy" """)
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT statement.")],
    clickhouse: ClickHouse = None,
    as_json: Json = False,
) -> None:
    """Run a read-only SQL query; after a demo it reads the data the demo left."""
    from console import sql as sql_view

    sql_view.show(resolve(None, clickhouse), query, as_json=as_json)


@app.command(
    "export",
    epilog="Examples: steersman export --table v_decisions --from 2026-11-01 --to 2026-12-01 --out november.parquet · "
    "steersman export --table v_costs_daily --tenant acme --out costs.parquet --json",
)
def export_view(
    table: Annotated[str, typer.Option(help=f"View: {', '.join(TIMES)}.")],
    file: Annotated[Path, typer.Option("--out", help="File to write.")],
    start: Annotated[
        str | None, typer.Option("--from", help="Rows from then on: ISO 8601, UTC; else from the first.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Rows of before then; else to the last.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant; else of all.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    clickhouse: ClickHouse = None,
    as_json: Json = False,
) -> None:
    """Write a view's rows to a Parquet file (docs/sql.md). Ctrl-C leaves no partial file."""
    from console import export as export_run
    from sinks.export import Request as ExportRequest

    request = ExportRequest(
        table,
        None if start is None else parse_time(start, "--from"),
        None if end is None else parse_time(end, "--to"),
        tenant,
    )
    export_run.run(resolve(None, clickhouse), request, file, force=force, as_json=as_json)


@app.command(
    epilog="Examples: steersman fold · steersman fold --json · steersman fold --again",
)
def fold(
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Everything anew, also what is folded; the views read events meanwhile. Waits half a minute first, for questions under way.",
        ),
    ] = False,
    settle: Annotated[
        float,
        typer.Option(
            min=0, help="Leave events that were stored in the last so many seconds. 0 only while no sink runs."
        ),
    ] = SETTLE_S,
    clickhouse: ClickHouse = None,
    as_json: Json = False,
) -> None:
    """Add up the settled traces now, as the sink does every few minutes: questions about many traces read a row of each. Ctrl-C may end it anywhere."""
    from console import fold as fold_run

    fold_run.run(resolve(None, clickhouse), again=again, settle_s=settle, as_json=as_json)


@app.command(
    epilog="Examples: steersman ope research/retrieval · steersman ope research/retrieval --target baseline --from 2026-11-23T14:00 --json"
)
def ope(
    name: Annotated[str, typer.Argument(help="Policy, e.g. research/retrieval.")],
    wanted: Annotated[
        str,
        typer.Option(
            "--target", help="What to ask about: greedy, snapshot, baseline, uniform, or an arm such as 'model=small'."
        ),
    ] = "greedy",
    start: Annotated[
        str | None, typer.Option("--from", help="Decisions made from then on: ISO 8601, UTC; else all that are stored.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Decisions made before then.")] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the intervals.")] = 0.95,
    brokers: Brokers = None,
    clickhouse: ClickHouse = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Tell what another policy would have earned on the decisions that were logged: with interval and effective sample size."""
    from console import ope as ope_run

    request = ope_run.Request(
        name,
        tenant,
        wanted,
        None if start is None else parse_time(start, "--from"),
        None if end is None else parse_time(end, "--to"),
        confidence,
    )
    ope_run.run(resolve(brokers, clickhouse), request, as_json=as_json)


@app.command(
    epilog="Examples: steersman replay --policy-file candidate.toml · steersman replay --from 2026-11-23T14:00 --policy-file "
    "candidate.toml --policy research/retrieval --json. Exit 4 when the log cannot tell."
)
def replay(
    candidate: Annotated[
        Path,
        typer.Option(
            "--policy-file", help="The candidate: a policies file with other weights, ceilings, learner, arms ..."
        ),
    ],
    name: Annotated[str | None, typer.Option("--policy", help="Only this policy; else all of the file.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Decisions made from then on: ISO 8601, UTC; else the whole log.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Decisions made before then.")] = None,
    last_part: Annotated[
        float,
        typer.Option(
            min=0.05,
            max=0.9,
            help="Share of the decisions, the last ones, on which the policy learned before is tried.",
        ),
    ] = 0.25,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the intervals.")] = 0.95,
    file: PoliciesFile = DEFAULT_POLICIES,
    brokers: Brokers = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Learn again from the reward log under a candidate policies file, and tell how it would have done: utility, quality, cost, latency. Publishes nothing."""
    from console import replay as replay_run

    request = replay_run.Request(
        candidate,
        file,
        name,
        tenant,
        None if start is None else parse_time(start, "--from"),
        None if end is None else parse_time(end, "--to"),
        last_part,
        confidence,
    )
    raise typer.Exit(replay_run.run(resolve(brokers), request, as_json=as_json))


@app.command(
    epilog="Examples: steersman report · steersman report --out report.html · steersman report --from 2026-11-23T14:00 --policy "
    "research/retrieval --json"
)
def report(
    start: Annotated[
        str | None, typer.Option("--from", help="Decisions made from then on: ISO 8601, UTC; else all that are stored.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Decisions made before then.")] = None,
    name: Annotated[str | None, typer.Option("--policy", help="Only this policy; else all.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--out", dir_okay=False, help="Also write one HTML file with plots, which needs nothing else."),
    ] = None,
    clickhouse: ClickHouse = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Say what the loop has done: learned policies against their baselines, what they chose, the trade-off, alerts, data quality."""
    from console.report import command as report_run
    from console.report.queries import Request as ReportRequest

    request = ReportRequest(
        tenant,
        name,
        None if start is None else parse_time(start, "--from"),
        None if end is None else parse_time(end, "--to"),
    )
    report_run.run(resolve(None, clickhouse), request, file, as_json=as_json)
