"""`steersman sql`: one read-only query against the store."""

from __future__ import annotations

import contextlib

from clickhouse_connect.driver.exceptions import ClickHouseError

from console.output import print_rows
from console.target import Target
from sinks.clickhouse import connect
from steersman.errors import SteersmanError


def show(target: Target, query: str, *, as_json: bool) -> None:
    """Print the result of a query.

    Raises
    ------
    SteersmanError
        With ClickHouse's own words when it refuses the query.
    Unreachable
        When no store answers.
    """
    with contextlib.closing(connect(target.reading)) as client:
        try:
            # Whoever may write may do so by accident; a user who only reads may set nothing, not even this.
            known = client.server_settings.get("readonly")
            settings = {} if known is not None and known.readonly else {"readonly": 2}
            result = client.query(query, settings=settings)
        except ClickHouseError as e:
            raise SteersmanError(f"ClickHouse refused the query: {str(e).splitlines()[0]}") from e
        print_rows(result.column_names, result.result_rows, as_json=as_json)
