"""Views as Parquet files: a span of time of one view, streamed."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steersman.errors import ConfigError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

TIMES = {
    "v_alerts": "ts", "v_alert_traces": "ts", "v_arm_share": "minute", "v_costs_daily": "day", "v_dead_letter_reasons": "day",
    "v_dead_letters": "ts", "v_decisions": "decided_at", "v_events": "ts", "v_explored_daily": "day", "v_feedback_coverage": "day",
    "v_forgotten": "forgotten_at", "v_latency_hourly": "hour", "v_ledger": "minute", "v_policies": "created_at",
    "v_policy_stages": "since", "v_rewards": "decided_at", "v_rollups": "window_start",
}  # fmt: skip
"""What can be exported: view -> the column that a span of time is about."""
_SPAN = (
    "WHERE {column:Identifier} >= {since:DateTime64(6, 'UTC')} AND {column:Identifier} < {until:DateTime64(6, 'UTC')}"
)
_COUNT = f"SELECT count() FROM {{view:Identifier}} {_SPAN}"
_ROWS = f"SELECT * FROM {{view:Identifier}} {_SPAN}"
_TENANT = " AND tenant = {tenant:String}"
_EVER = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.datetime(2200, 1, 1, tzinfo=dt.UTC)

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Request:
    """What to export.

    Attributes
    ----------
    view
        One of `TIMES`.
    since, until
        Span of its time column, the end excluded; None is no limit.
    tenant
        Only of this tenant; None for all.

    Raises
    ------
    ConfigError
        For a view that is none, or a span without time in it.
    """

    view: str
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    tenant: str | None = None

    def __post_init__(self) -> None:
        """Check."""
        if self.view not in TIMES:
            raise ConfigError(f"no view {self.view!r} can be exported: it is one of {', '.join(TIMES)}")
        if self.since and self.until and self.since >= self.until:
            raise ConfigError(f"nothing lies between {self.since.isoformat()} and {self.until.isoformat()}")

    @property
    def parameters(self) -> dict[str, Any]:
        """Query parameters."""
        asked = {
            "view": self.view,
            "column": TIMES[self.view],
            "since": self.since or _EVER[0],
            "until": self.until or _EVER[1],
        }
        return asked if self.tenant is None else {**asked, "tenant": self.tenant}

    def sql(self, query: str) -> str:
        """Query, with the condition on the tenant where there is one."""
        return query if self.tenant is None else query + _TENANT


def count(client: Client, request: Request) -> int:
    """Rows that there are."""
    return int(client.query(request.sql(_COUNT), parameters=request.parameters).result_rows[0][0])


def export(client: Client, request: Request, file: Path, progress: Progress = lambda size: None) -> int:
    """Write the rows to a Parquet file; returns its size in bytes.

    The file is written under another name beside it and takes its own only when it is whole; whatever ends this earlier,
    Ctrl-C too, takes the partial one away.

    Parameters
    ----------
    client
        Connected to the database.
    request
        What.
    file
        Where to; overwritten.
    progress
        Told the bytes written so far.

    Raises
    ------
    ConfigError
        When the file cannot be written.
    """
    # The server keeps the result until it is complete: an error then is an error, and not the end of half a file.
    whole = {"wait_end_of_query": "1", "enable_http_compression": "0"} if hasattr(client, "url") else {}
    try:
        number, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".partial")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from error
    partial = Path(name)
    try:
        size = 0
        with os.fdopen(number, "wb") as out:
            stream: Any = client.raw_stream(
                request.sql(_ROWS), parameters=request.parameters, fmt="Parquet", settings=whole
            )
            with contextlib.closing(stream):
                while chunk := stream.read(1 << 20):
                    out.write(chunk)
                    size += len(chunk)
                    progress(size)
        partial.chmod(0o644)
        partial.replace(file)
        return size
    finally:
        partial.unlink(missing_ok=True)
