"""What would reach out of the store: files, other servers, commands, other processes. Refused to everybody, whoever asks. Pure.

The text of a statement is looked at, by ClickHouse's rules for quotes and comments. That bounds mistakes of those who may write,
and stolen credentials; what readers may do is decided by ClickHouse's own parser besides (`console.gateway.reading`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from console.gateway.statements import Statement, tokens

INNOCENT = frozenset(
    {
        "numbers", "numbers_mt", "zeros", "zeros_mt", "generateseries", "generate_series", "generaterandom", "primes",
        "null", "values", "view", "format", "input",
    }
)  # fmt: skip
"""Table functions that read nothing but their arguments."""
REACHING = frozenset(
    {
        "file", "url", "s3", "remote", "remotesecure", "cluster", "clusterallreplicas", "executable", "python", "sqlite", "mysql",
        "postgresql", "mongodb", "redis", "jdbc", "odbc", "hdfs", "azureblobstorage", "gcs", "iceberg", "deltalake", "hudi",
        "filesystem", "arrowflight", "ytsaurus", "catboostevaluate", "filecluster", "urlcluster", "s3cluster", "eval",
        "aiclassify", "aiembed", "aiextract", "aifilter", "aigenerate", "airedact", "aisimilarity", "aitranslate",
    }
)  # fmt: skip
"""Functions that reach out, whatever the engine's own list says."""
_ENGINES = re.compile(
    rb"(Shared|Replicated)?([A-Z][a-z]+)*MergeTree|Memory|Null|View|Set|Join|Log|TinyLog|StripeLog|Buffer|Merge|Atomic"
)
_UNSUPPORTED = frozenset(
    {
        "BACKUP", "RESTORE", "GRANT", "REVOKE", "KILL", "EXECUTE", "EXPORT", "IMPERSONATE", "BEGIN", "COMMIT", "ROLLBACK", "COPY",
        "PREPARE", "DEALLOCATE", "MOVE",
    }
)  # fmt: skip
_CREATED = frozenset({b"OR", b"REPLACE", b"IF", b"NOT", b"EXISTS", b"MATERIALIZED", b"LIVE"})
_PLACES = frozenset({b"FROM", b"JOIN", b"INTO", b"TABLE", b"DESCRIBE", b"DESC", b"."})
"""Behind these may stand a table; clickhouse-local takes a quoted path for one."""
_PATH = re.compile(rb"[/\\]|\.\w+$")
_NAME = re.compile(r"\w+")
_SYSTEM = re.compile(
    rb"\s*SYSTEM\s+((START|STOP)\s+(TTL\s+)?MERGES|(START|STOP)\s+(MOVES|VIEWS?)|FLUSH|SYNC|WAIT|DROP\s+[A-Z ]*CACHE|RELOAD\s+ASYNCHRONOUS)\b",
    re.I,
)


def outside(statement: Statement, functions: frozenset[str], parameters: Mapping[str, str]) -> str | None:
    """Return what a statement names that is not of the store, worded for an error; None when all is well.

    Parameters
    ----------
    statement
        Any statement.
    functions
        Table functions of the engine, lower case; those of `INNOCENT` pass.
    parameters
        Values of the statement's parameters: one that is an Identifier may be the name of a file as well.
    """
    sql = statement.sql
    verb = statement.verb
    if verb in _UNSUPPORTED:
        return f"{verb} is not supported here"
    if verb == "SYSTEM" and not _SYSTEM.match(sql):
        return "of SYSTEM, only what starts and stops merges, flushes, waits and drops caches is supported here"
    reaching = (functions | REACHING) - INNOCENT
    name, engine, words, depth, before, parameter = "", False, 0, 0, b"", b""
    for match in tokens(sql):
        token = match.group()
        if token.isspace() or token.startswith((b"--", b"#!", b"# ")):
            continue
        if token == b"(" and name in reaching:
            return f"{name}() is refused here: it would read or reach what is not of this store"
        if token == b";" and _more(sql[match.end() :]):
            return "several statements at once are not supported here: send them one by one"
        word = token.upper()
        if before in _PLACES and token[:1] in b"`\"'" and _PATH.search(token[1:-1]):
            return f"{token[:80].decode('utf-8', 'replace')} is the name of no table of this store"
        if word == b"IDENTIFIER" and before == b":":
            value = parameters.get(parameter.decode("utf-8", "replace"), "")
            if value and not _NAME.fullmatch(value):
                return f"{value[:80]!r} is the name of no table or column of this store (a database goes into a parameter of its own)"
        if token != b":":
            parameter = token
        before = word
        depth += (token == b"(") - (token == b")")
        if engine and token != b"=":
            if not _ENGINES.fullmatch(token.strip(b'`"')):
                return f"engine {token[:40].decode('utf-8', 'replace')} is refused here: tables are kept in this store"
            engine = False
        if verb == "CREATE" and words and words < 8 and word not in _CREATED:
            if problem := _made(word):
                return problem
            words = 8
        words += token[:1].isalpha()
        engine = engine or (word == b"ENGINE" and not depth and verb in ("CREATE", "ATTACH"))
        name = token.strip(b'`"').decode("utf-8", "replace").lower()
        if verb == "INSERT" and word == b"VALUES":
            return None  # what follows is data
    return None


def _made(what: bytes) -> str | None:
    if what in (b"TABLE", b"VIEW", b"DATABASE"):
        return None
    said = what[:40].decode("utf-8", "replace")
    if what in (b"USER", b"ROLE", b"ROW", b"POLICY", b"QUOTA", b"SETTINGS", b"PROFILE"):
        return f"CREATE {said} is not supported here: chDB has no access control; users of this endpoint stand in its users file"
    if what == b"TEMPORARY":
        return "temporary tables are not supported here: there are no sessions, each statement stands alone"
    return f"CREATE {said} is not supported here"


def _more(rest: bytes) -> bool:
    return any(
        not t.group().isspace() and t.group() != b";" and not t.group().startswith((b"--", b"#")) for t in tokens(rest)
    )
