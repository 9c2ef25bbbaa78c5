"""What reaches out of the store is refused to everybody; what the platform itself sends is not."""

from __future__ import annotations

import pytest

from console.gateway.outside import outside
from console.gateway.statements import parse, tokens, without_format
from sinks.migrations import load

FUNCTIONS = frozenset({"file", "url", "numbers", "format", "values", "view", "merge", "newreader"})


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM file('/etc/passwd')",
        "SELECT * FROM FILE ('/etc/passwd', 'TSV')",
        "SELECT * FROM `file`('/etc/passwd')",
        "SELECT * FROM \"url\"('http://127.0.0.1:1')",
        "SELECT * FROM file /* '*/ ('/etc/passwd')",
        "SELECT * FROM /* /* */ ' */ url('http://x') -- '",
        "SELECT $$'$$, * FROM file('/etc/passwd'), $$'$$",
        "SELECT ‘'’, * FROM file('/etc/passwd') -- '",
        "SELECT * FROM newreader('x')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM default.`/etc/passwd`",
        "SELECT * FROM `data.csv`",
        'INSERT INTO t SELECT * FROM "../x"',
        "DESCRIBE TABLE '/etc/passwd'",
        "INSERT INTO FUNCTION file('/tmp/x') SELECT 1",
        "INSERT INTO TABLE FUNCTION s3('http://x') VALUES (1)",
        "INSERT INTO t SELECT * FROM remote('127.0.0.1', system.one)",
        "CREATE TABLE t (a Int8) ENGINE = File(TSV)",
        "CREATE TABLE t (a Int8) ENGINE URL('http://x', TSV)",
        "CREATE TABLE t (a Int8) ENGINE = `MySQL`('h', 'd', 't', 'u', 'p')",
        "CREATE DATABASE d ENGINE = Filesystem('/etc')",
        "CREATE TABLE t AS file('/etc/passwd')",
        "CREATE DICTIONARY d (a Int8) PRIMARY KEY a SOURCE(FILE(path '/etc/passwd'))",
        "CREATE OR REPLACE DICTIONARY d (a Int8) PRIMARY KEY a",
        "CREATE FUNCTION f AS (x) -> x",
        "CREATE NAMED COLLECTION c AS a = 1",
        "CREATE USER u",
        "CREATE ROW POLICY p ON t USING 1",
        "CREATE TEMPORARY TABLE t (a Int8)",
        "BACKUP TABLE t TO File('/tmp/x')",
        "RESTORE TABLE t FROM File('/tmp/x')",
        "GRANT ALL ON *.* TO default",
        "KILL QUERY WHERE 1",
        "SYSTEM SHUTDOWN",
        "SYSTEM RELOAD CONFIG",
        "SELECT 1; SELECT 2",
        "SELECT 1 ;; DROP TABLE t",
        "DROP TABLE t; DROP TABLE u",
        "SELECT $a$;$a$; SELECT 2",
        "SELECT catboostEvaluate('/etc/passwd', 1)",
    ],
)
def test_refused(sql: str) -> None:
    assert outside(parse(sql.encode()), FUNCTIONS, {}) is not None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT 1;",
        "SELECT 1 ; -- done\n",
        "SELECT 'file(', \"a;b\", `url`, file FROM t WHERE url = 'http://x'",
        "SELECT number FROM numbers(3)",
        "SELECT format('{}', 1)",
        "INSERT INTO t VALUES ('file(;'), ('x')",
        "INSERT INTO t (file, url) SELECT 1, 2",
        "INSERT INTO t (s) SELECT 1, 'research/retrieval' FROM numbers(3) WHERE s IN ('a/b', 'c.csv')",
        'SELECT a AS "cost / n", b AS `x.csv` FROM t ORDER BY `cost / n`, "x.csv"',
        "INSERT INTO t FORMAT TSV\nfile(;",
        "CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a",
        "CREATE TABLE t (engine String) ENGINE = ReplacingMergeTree(revision) ORDER BY engine",
        "CREATE OR REPLACE VIEW v AS SELECT * FROM t",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS m TO t AS SELECT 1",
        "CREATE DATABASE IF NOT EXISTS d",
        "SYSTEM STOP MERGES t",
        "SYSTEM START TTL MERGES",
        "ALTER TABLE t ADD CONSTRAINT c CHECK a > 5",
        "EXISTS TABLE t",
        "",
    ],
)
def test_served(sql: str) -> None:
    assert outside(parse(sql.encode()), FUNCTIONS, {}) is None


def test_every_statement_of_the_migrations_is_served() -> None:
    for migration in load():
        for statement in migration.statements:
            assert outside(parse(statement.encode()), FUNCTIONS, {}) is None, statement


@pytest.mark.parametrize(
    ("sql", "bare", "name"),
    [
        (b"SELECT 1 FORMAT JSON", b"SELECT 1", "JSON"),
        (b"SELECT 1 FORMAT Native SETTINGS max_threads = 1;", b"SELECT 1    SETTINGS max_threads = 1", "Native"),
        (b"SELECT 'x FORMAT y' -- FORMAT z", b"SELECT 'x FORMAT y'", None),
        (b"SELECT format('{}', 1) FORMAT TSV\n;\n", b"SELECT format('{}', 1)", "TSV"),
        (b"SELECT (SELECT 1 FORMAT x)", b"SELECT (SELECT 1 FORMAT x)", None),
        (b"SELECT 1 /* /* */ FORMAT x */", b"SELECT 1", None),
        (b"SELECT a format FROM t FORMAT TSV", b"SELECT a format FROM t", "TSV"),
        (b"SELECT format FROM t", b"SELECT format FROM t", None),
        (b"SELECT 1 SETTINGS max_threads = 1 FORMAT TSV", b"SELECT 1 SETTINGS max_threads = 1", "TSV"),
        (b"SELECT $$ FORMAT x$$ FORMAT TSV -- c", b"SELECT $$ FORMAT x$$", "TSV"),
        (b"SELECT 1;", b"SELECT 1", None),
        (b"", b"", None),
    ],
)
def test_the_format_is_taken_out(sql: bytes, bare: bytes, name: str | None) -> None:
    found = without_format(sql)
    assert (found[0].split(), found[1]) == (bare.split(), name)


@pytest.mark.parametrize(
    "sql", [b"/*", b"/* /* */", b"'", b"`a", b"$$", b"$a$ $b$", b"\xe2\x80\x98", b"\xff\xfe", b"\0", b"*/ /*/"]
)
def test_what_is_never_closed_comes_to_an_end(sql: bytes) -> None:
    assert sum(len(match.group()) for match in tokens(sql)) <= len(sql)
    assert parse(sql).insert_format is None


@pytest.mark.parametrize(
    "sql",
    ["SELECT * FROM {p:Identifier}", "SELECT * FROM { p /* x */ : /* y */ Identifier }", "DROP TABLE {p:Identifier}"],
)
@pytest.mark.parametrize("value", ["/etc/passwd", "../../etc/passwd", "data.csv", "a\\b", "`/etc/passwd`"])
def test_a_parameter_names_no_file(sql: str, value: str) -> None:
    assert outside(parse(sql.encode()), FUNCTIONS, {"p": value, "q": "x"}) is not None
    assert outside(parse(sql.encode()), FUNCTIONS, {"p": "trace_events", "q": value}) is None
    assert outside(parse(sql.replace("Identifier", "String").encode()), FUNCTIONS, {"p": value}) is None
