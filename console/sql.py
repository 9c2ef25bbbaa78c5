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
    with contextlib.closing(connect(target.clickhouse)) as client:
        try:
            result = client.query(query, settings={"readonly": 2})
        except ClickHouseError as e:
            raise SteersmanError(f"ClickHouse refused the query: {str(e).splitlines()[0]}") from e
        print_rows(result.column_names, result.result_rows, as_json=as_json)
