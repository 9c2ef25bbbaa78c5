"""What those may ask who only read, and what those see who belong to a tenant.

A query is judged by what ClickHouse's own parser makes of it: written down anew (``formatQuery``), so that it is one statement in one
form, and taken apart (``EXPLAIN AST``) into the tables and functions that it names. What was judged is what runs, with ``readonly = 1``, so that neither it nor a SETTINGS clause in it changes anything, with the limits of
its user, and, for a user of a tenant, with a filter on every table and view that says whose a row is
(``additional_table_filters``). Filters of that kind are conditions of the query: without more, a condition that its author
chose could be tested on rows of others before they are left out, and fail on them (``throwIf``). So PREWHERE is refused, and the
optimizer may neither move nor merge conditions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from console.gateway.catalogue import VIEW, Catalogue
from console.gateway.outside import INNOCENT, REACHING
from console.gateway.query import Query
from console.gateway.statements import Statement, tokens, without_format
from console.gateway.tree import named
from console.gateway.users import LIMITS, User

READONLY, ACCESS_DENIED, UNKNOWN_TABLE = 164, 497, 60
"""ClickHouse's error codes."""
SYSTEM_TABLES = frozenset(
    {
        "one", "numbers", "numbers_mt", "zeros", "zeros_mt", "settings", "functions", "formats", "data_type_families", "time_zones",
        "table_functions", "table_engines", "build_options", "keywords", "collations", "licenses", "contributors",
    }
)  # fmt: skip
"""Of the database ``system``, what says nothing about anybody's data."""
OPERATORS_TABLES = frozenset(
    {
        "tables", "columns", "databases", "parts", "parts_columns", "disks", "merges", "mutations", "metrics", "events",
        "asynchronous_metrics", "data_skipping_indices", "detached_parts", "projections", "dictionaries", "errors",
    }
)  # fmt: skip
"""What only users without a tenant may see besides: how much there is. Not the texts of others' queries."""
PASSED_ON = frozenset(
    {
        "max_threads", "max_block_size", "extremes", "session_timezone", "join_use_nulls", "date_time_output_format",
        "date_time_input_format", "log_comment", "limit", "offset", "group_by_use_nulls", "cast_string_to_dynamic_use_inference",
        "use_client_time_zone", "prefer_column_name_to_alias", "http_write_exception_in_output_format",
    }
)  # fmt: skip
"""Settings that a reader may choose; besides them his limits, downwards, and how results are written (``output_format_*``)."""
IGNORED = frozenset({"readonly", "async_insert", "wait_for_async_insert"})
"""Settings that make no difference to a reader."""
BARRIER = {
    "query_plan_filter_push_down": "0",
    "query_plan_merge_filters": "0",
    "query_plan_merge_filter_into_join_condition": "0",
    "query_plan_optimize_prewhere": "0",
    "optimize_move_to_prewhere": "0",
    "enable_optimize_predicate_expression": "0",
}
"""Keeps conditions where they were written: those of the tenant come first, those of the query see what is left."""

_QUERIES = frozenset({"SELECT", "WITH", "FROM", ""})
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_IDENTIFIER = r"(?:[A-Za-z_]\w*|`[A-Za-z_]\w*`|\"[A-Za-z_]\w*\")"
_LOOK = re.compile(
    rf"\s*(?:SHOW\s+(?:FULL\s+)?(?:TABLES|COLUMNS\s+(?:FROM|IN)\s+(?P<columns>{_IDENTIFIER}(?:\.{_IDENTIFIER})?))"
    rf"(?:\s+(?:FROM|IN)\s+{_IDENTIFIER})?(?:\s+(?:NOT\s+)?I?LIKE\s+'[\w%. -]*')?(?:\s+LIMIT\s+\d+)?"
    rf"|SHOW\s+DATABASES|SHOW\s+CREATE\s+(?:TABLE\s+|VIEW\s+)?(?P<create>{_IDENTIFIER}(?:\.{_IDENTIFIER})?)"
    rf"|(?:DESCRIBE|DESC)\s+(?:TABLE\s+)?(?P<desc>{_IDENTIFIER}(?:\.{_IDENTIFIER})?)"
    rf"|EXISTS\s+(?:TABLE\s+|VIEW\s+|DATABASE\s+)?{_IDENTIFIER}(?:\.{_IDENTIFIER})?)\s*;?\s*\Z",
    re.I | re.A,
)
_EXPLAIN = re.compile(
    r"\s*EXPLAIN\s+(?:(?:AST|SYNTAX|QUERY\s+TREE|PLAN|PIPELINE|ESTIMATE)\b)?\s*(?:[a-z_]+\s*=\s*\w+\s*,?\s*)*(?=SELECT|WITH|\()",
    re.I | re.A,
)
_DESCRIBED = re.compile(r"\s*(?:DESCRIBE|DESC)\s+(?:TABLE\s+)?(?=\()", re.I | re.A)
_TELLING = frozenset(
    {"joinget", "joingetornull", "hascolumnintable", "file", "catboostevaluate", "initializeaggregation"}
)
_DICTIONARY = re.compile(r"dict(get|has|isin)", re.I)


class ReadingRefused(Exception):
    """A reader asked for what readers may not have.

    Attributes
    ----------
    code
        ClickHouse's error code.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def as_reader(query: Query, user: User, catalogue: Catalogue) -> Query:
    """Return what runs when a reader sends a query.

    Parameters
    ----------
    query
        As it was sent, its statement written down anew by ClickHouse (`Engine.canonical`).
    user
        Who sent it.
    catalogue
        Tables and views there are.

    Raises
    ------
    ReadingRefused
        It is nothing for readers, as far as that can be told before it has been parsed.
    """
    if query.database not in (*catalogue, "default"):
        raise ReadingRefused(81, f"Database {query.database} does not exist (UNKNOWN_DATABASE)")
    settings = _settings(user, query.settings)
    if user.tenant is not None:
        settings |= BARRIER | {"additional_table_filters": filters(user.tenant, catalogue)}
    statement, judged = _judged(query.statement, user)
    check = None
    if judged is None:
        _look(statement, query.database, user, catalogue)
    else:
        check = partial(check_tree, database=query.database, tenant=user.tenant, catalogue=catalogue)
    return Query(
        statement, query.database, settings, query.parameters, statement.result_format or query.default_format,
        sealed=True, check=check, judged=judged,
    )  # fmt: skip


def _judged(statement: Statement, user: User) -> tuple[Statement, bytes | None]:
    """Return the statement without FORMAT, and the query in it whose syntax tree is to be looked at, None for none."""
    if statement.uses_files:
        raise ReadingRefused(
            ACCESS_DENIED, "INFILE and OUTFILE are refused: the files would be this server's (ACCESS_DENIED)"
        )
    sql, named_format = without_format(statement.sql)
    for token in (match.group() for match in tokens(sql)):
        if user.tenant is not None and token.upper() == b"PREWHERE":
            raise ReadingRefused(ACCESS_DENIED, "PREWHERE is not for users of a tenant: write WHERE (ACCESS_DENIED)")
        if token[:1] == b"`" and b"\\" in token:
            raise ReadingRefused(
                ACCESS_DENIED, "names with control characters in them are not for readers (ACCESS_DENIED)"
            )
    cut = Statement(statement.verb, sql, result_format=named_format)
    text = sql.decode("utf-8", "replace")
    if statement.verb in _QUERIES:
        return cut, sql
    if inner := _DESCRIBED.match(text):
        return cut, text[inner.end() :].encode()
    if statement.verb == "EXPLAIN" and user.tenant is None and (inner := _EXPLAIN.match(text)):
        return cut, text[inner.end() :].encode()
    if statement.verb in ("SHOW", "DESCRIBE", "EXISTS"):
        return cut, None
    raise ReadingRefused(READONLY, f"{statement.verb} is refused: user {user.name} only reads (READONLY)")


def _look(statement: Statement, database: str, user: User, catalogue: Catalogue) -> None:
    """Let a statement pass that looks at tables and their columns, in its plain form."""
    found = _LOOK.match(statement.sql.decode("utf-8", "replace"))
    if found is None:
        raise ReadingRefused(
            ACCESS_DENIED,
            f"of {statement.verb}, readers have the plain forms: SHOW TABLES, SHOW DATABASES, SHOW COLUMNS FROM t, SHOW CREATE "
            "TABLE t, DESCRIBE t, EXISTS t (ACCESS_DENIED)",
        )
    for name in filter(None, found.group("columns", "create", "desc")):
        _table(name.replace("`", "").replace('"', ""), database, user.tenant, catalogue)


def _settings(user: User, asked: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a reader's statement: his limits, and what else he asked for and may."""
    made = {name: str(getattr(user.limits, name)) for name in LIMITS} | {"async_insert": "0"}
    for name, value in asked.items():
        if name in LIMITS:
            most = getattr(user.limits, name)
            wanted = int(float(value)) if re.fullmatch(r"\d{1,18}(\.\d+)?", value, re.A) else 0
            made[name] = str(min(wanted, most) if wanted > 0 else most)
        elif name in PASSED_ON or (name.startswith("output_format_") and name != "output_format_schema"):
            made[name] = value
        elif name not in IGNORED:
            raise ReadingRefused(
                READONLY,
                f"Cannot modify '{name[:80]}' setting in readonly mode: user {user.name} only reads (READONLY)",
            )
    return made


def filters(tenant: str, catalogue: Catalogue) -> str:
    """Return the value of ``additional_table_filters`` that leaves a tenant its own rows."""
    condition = f"tenant = {_quoted(tenant)}"
    names = [
        f"{db}.{name}" for db, found in sorted(catalogue.items()) for name, r in sorted(found.items()) if r.has_tenant
    ]
    return "{" + ", ".join(f"{_quoted(name)}: {_quoted(condition)}" for name in names) + "}"


def check_tree(tree: str, *, database: str, tenant: str | None, catalogue: Catalogue) -> None:
    """Judge a query by its syntax tree.

    Parameters
    ----------
    tree
        What ``EXPLAIN AST`` says.
    database
        Database of unqualified names.
    tenant
        Tenant of its author; None for all.
    catalogue
        Tables and views there are.

    Raises
    ------
    ReadingRefused
        It names what its author may not read.
    """
    found = named(tree)
    if found.odd:
        raise ReadingRefused(
            ACCESS_DENIED, f"this is not understood, and so refused to readers: {found.odd[0][:100]!r} (ACCESS_DENIED)"
        )
    if found.sets:  # of a subquery, readonly alone does not refuse them
        raise ReadingRefused(READONLY, "SETTINGS are not for readers: write what may be set into the URL (READONLY)")
    for name in found.tables:
        _table(name, database, tenant, catalogue)
    for name in found.table_functions:
        _table_function(name, database, tenant, catalogue)
    for name in found.functions:
        low = name.lower()
        if low in REACHING or low in _TELLING or _DICTIONARY.match(low):
            raise ReadingRefused(ACCESS_DENIED, f"function {name[:80]} is not for readers (ACCESS_DENIED)")
    for name in found.identifiers:
        _identifier(name, database, tenant, catalogue)


def _table(name: str, database: str, tenant: str | None, catalogue: Catalogue) -> None:
    head, dot, rest = name.partition(".")
    if not dot:
        if name in catalogue.get(database, {}):
            head, rest = database, name
        elif _PLAIN.match(name):
            return  # a name that the query gives (WITH), or none at all, which ClickHouse will say
        else:
            raise ReadingRefused(UNKNOWN_TABLE, f"Table {database}.{name[:200]} does not exist (UNKNOWN_TABLE)")
    if head == "system":
        if rest in SYSTEM_TABLES or (tenant is None and rest in OPERATORS_TABLES):
            return
    elif head.lower() == "information_schema" and tenant is None:
        return
    elif (found := catalogue.get(head, {}).get(rest)) is not None:
        if tenant is None or found.for_tenants:
            return
    elif head in (*catalogue, "default"):
        raise ReadingRefused(UNKNOWN_TABLE, f"Table {name[:200]} does not exist (UNKNOWN_TABLE)")
    raise ReadingRefused(ACCESS_DENIED, f"{name[:200]} is not for this user (ACCESS_DENIED)")


def _table_function(name: str, database: str, tenant: str | None, catalogue: Catalogue) -> None:
    """A function that reads only its arguments, or a view with parameters."""
    if name.lower() in INNOCENT and name.lower() != "input":
        return
    head, dot, rest = name.partition(".")
    view = catalogue.get(head if dot else database, {}).get(rest if dot else name)
    if view is None or view.engine != VIEW or not (tenant is None or view.for_tenants):
        raise ReadingRefused(ACCESS_DENIED, f"table function {name[:80]} is not for readers (ACCESS_DENIED)")


def _identifier(name: str, database: str, tenant: str | None, catalogue: Catalogue) -> None:
    """``x IN name`` reads a table that the tree does not call one."""
    head, dot, rest = name.partition(".")
    if dot and head in (*catalogue, "system", "information_schema", "INFORMATION_SCHEMA") and head != database:
        _table(f"{head}.{rest.partition('.')[0]}", database, tenant, catalogue)
    elif tenant is not None:
        found = catalogue.get(database, {}).get(rest.partition(".")[0] if dot and head == database else head)
        if found is not None and not found.for_tenants:
            raise ReadingRefused(ACCESS_DENIED, f"{name[:200]} is not for this user (ACCESS_DENIED)")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
