"""`steersman export`: a view as a Parquet file."""

from __future__ import annotations

import contextlib
from pathlib import Path

from clickhouse_connect.driver.exceptions import ClickHouseError
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from console.output import err, out, print_json
from console.target import Target
from sinks.clickhouse import connect
from sinks.export import Request, count, export
from steersman.errors import ConfigError, SteersmanError


def run(target: Target, request: Request, file: Path, *, force: bool, as_json: bool) -> None:
    """Export, with progress on a terminal.

    Raises
    ------
    ConfigError
        When the file is there already and not `force`, or cannot be written.
    Unreachable
        When no store answers.
    SteersmanError
        With ClickHouse's own words when it refuses.
    """
    if file.exists() and not force:
        raise ConfigError(f"{file} exists: name another file, or say --force")
    # As the user who writes: results of readers are limited, and exports are not.
    with contextlib.closing(connect(target.clickhouse, timeout_s=3600)) as client:
        try:
            rows = count(client, request)
            bar = Progress(
                SpinnerColumn(),
                TextColumn(f"{request.view}: {rows:,} rows"),
                DownloadColumn(),
                TimeElapsedColumn(),
                console=err,
                transient=True,
            )
            with bar:
                task = bar.add_task("", total=None)
                size = export(client, request, file, lambda done: bar.update(task, completed=done))
        except ClickHouseError as e:
            raise SteersmanError(f"ClickHouse refused the export: {str(e).splitlines()[0]}") from e
    if as_json:
        print_json({"file": str(file), "view": request.view, "rows": rows, "bytes": size})
    else:
        out.print(f"{file}: {rows:,} rows of {request.view}, {size:,} bytes", markup=False, highlight=False)
