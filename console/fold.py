"""`steersman fold`: settled traces are added up by hand, with progress."""

from __future__ import annotations

import contextlib

from clickhouse_connect.driver.exceptions import ClickHouseError
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from console.output import err, out, print_json
from console.target import Target
from sinks.clickhouse import connect, shown
from sinks.fold import Folded, fold
from steersman.errors import SteersmanError


def run(target: Target, *, again: bool, settle_s: float, as_json: bool) -> None:
    """Fold what has settled.

    Raises
    ------
    Unreachable
        When no store answers.
    SteersmanError
        When its tables are of before, or it refuses.
    """
    with contextlib.closing(connect(target.clickhouse, timeout_s=3600)) as client:
        if not client.command("EXISTS TABLE trace_totals"):
            raise SteersmanError(
                f"the tables at {shown(target.clickhouse)} are of before this version: 'steersman migrate' first"
            )
        bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
        )
        with bar:
            task = bar.add_task("folding", total=None)

            def step(done: Folded) -> None:
                bar.update(task, description=f"{done.traces:,} traces, {done.events:,} events")

            try:
                done = fold(client, settle_s=settle_s, again=again, step=step)
            except ClickHouseError as e:
                raise SteersmanError(f"ClickHouse refused to fold: {str(e).splitlines()[0]}") from e
    if as_json:
        print_json({"traces": done.traces, "events": done.events, "steps": done.steps, "put_off": done.put_off})
        return
    said = f"{done.traces:,} traces folded, of {done.events:,} events" if done.steps else "nothing to fold"
    out.print(said, markup=False, highlight=False)
    if done.put_off:
        err.print(
            "something was left, since a deletion (steersman forget) or another fold is under way, or was cut off: run it again in five minutes",
            markup=False,
        )
