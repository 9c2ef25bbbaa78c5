"""Users who only read: what they get, what they do not, and what a statement of theirs may cost."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError

from console.children import Child, python
from sinks.clickhouse import connect
from sinks.migrations import migrate
from steersman.errors import Unreachable
from tests.console.endpoint import PASSWORD, Endpoint


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    running = Endpoint(tmp_path_factory.mktemp("endpoint"))
    with running.client("steersman") as client:
        migrate(client)
        client.command("CREATE TABLE t (a Int64, s String) ENGINE = MergeTree ORDER BY a")
        client.command("INSERT INTO t SELECT number, toString(number) FROM numbers(1000000)")
        client.command("CREATE DATABASE side")
        client.command("CREATE TABLE side.u (a Int64) ENGINE = MergeTree ORDER BY a")
        client.command("CREATE VIEW p AS SELECT a FROM t WHERE a < {most:Int64}")
    yield running
    assert running.child.stop() == 0


def url(endpoint: Endpoint, user: str, database: str = "") -> str:
    return f"http://{user}:{PASSWORD.format(user)}@127.0.0.1:{endpoint.port}/{database}"


def test_clickhouse_connect_reads_as_it_does_from_a_server(endpoint: Endpoint) -> None:
    with endpoint.client("reader") as client:
        assert client.query("SELECT max(a), {s:String} FROM t", parameters={"s": "it's"}).first_row == (999_999, "it's")
        assert client.query("SELECT a FROM p(most = 2) ORDER BY a").result_rows == [(0,), (1,)]
        assert client.query(
            "WITH x AS (SELECT a FROM t LIMIT 3) SELECT count() FROM x JOIN x AS y USING (a)"
        ).first_row == (3,)
        assert client.command("SELECT count() FROM v_events") == 0
        assert {row[0] for row in client.query("SHOW TABLES").result_rows} >= {"t", "v_rewards"}
        assert [row[0] for row in client.query("DESCRIBE TABLE t").result_rows] == ["a", "s"]
        with client.query_row_block_stream("SELECT a FROM t LIMIT 300000") as stream:
            assert sum(len(block) for block in stream) == 300_000
    with endpoint.client("reader", database="side", compress="lz4") as client:
        assert client.query("SELECT count() FROM u").first_row == (0,)
        assert client.query("SELECT count() FROM default.t").first_row == (1_000_000,)


def test_what_readers_send_is_a_statement_and_no_larger(endpoint: Endpoint) -> None:
    def ask(user: str, body: bytes, **headers: str) -> int:
        known = {"X_ClickHouse_User": user, "X_ClickHouse_Key": PASSWORD.format(user)}
        return endpoint.http("/", body, "POST", **known, **headers)[0]

    padding = b"SELECT 1" + b" " * (2 << 20)
    assert ask("reader", padding[: 1 << 20]) == 200
    assert ask("reader", padding) == 413
    assert ask("reader", gzip.compress(padding), Content_Encoding="gzip") == 413
    frames = b"".join(gzip.compress(b" ") for _ in range(20)) + gzip.compress(b"SELECT 1")
    assert ask("reader", frames, Content_Encoding="gzip") == 400, "each frame copies what comes after it"
    fields = "".join(f'--x\r\nContent-Disposition: form-data; name="f{n}"\r\n\r\n{"y" * 600_000}\r\n' for n in range(2))
    form = f'{fields}--x\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT 1\r\n--x--\r\n'.encode()
    assert ask("reader", form, Content_Type="multipart/form-data; boundary=x") == 413, "each field is small enough"
    assert ask("steersman", padding) == 400, "not for its size, but for ClickHouse's max_query_size"
    assert ask("steersman", frames, Content_Encoding="gzip") == 200


def test_parquet_comes_through_a_file_for_who_writes_and_within_limits_for_who_reads(endpoint: Endpoint) -> None:
    asked = {"wait_end_of_query": "1", "default_format": "Parquet"}
    for user in ("steersman", "reader"):
        known = {"X_ClickHouse_User": user, "X_ClickHouse_Key": PASSWORD.format(user)}
        for method in ("POST", "GET"):
            query = urlencode({**asked, "query": "SELECT a FROM t WHERE a < 10"})
            status, headers, body = endpoint.http(f"/?{query}", b"" if method == "POST" else None, method, **known)
            assert (status, body[:4], body[-4:], headers["X-ClickHouse-Format"]) == (200, "PAR1", "PAR1", "Parquet"), (
                user,
                method,
            )
    assert list((endpoint.folder / "data" / "inserts").iterdir()) == []
    status, said = endpoint.ask("narrow", "SELECT number FROM numbers(5000)", **asked)
    assert (status >= 400, "TOO_MANY_ROWS_OR_BYTES" in said) == (True, True), said


def test_what_a_statement_wrote_before_it_failed_is_in_no_later_answer(endpoint: Endpoint) -> None:
    """chDB keeps it with the connection, and puts it before the next result."""
    fails = "SELECT a, throwIf(a = 900000) FROM t ORDER BY a"
    for _ in range(3):
        status, said = endpoint.ask("reader", fails, max_block_size="1000", max_threads="1")
        assert (status >= 400, "throwIf" in said) == (True, True), said
        for _ in range(5):
            assert endpoint.ask("reader", "SELECT 1", max_block_size="1000", max_threads="1") == (200, "1\n")


def test_the_platforms_own_connection_reads_too(endpoint: Endpoint) -> None:
    client = connect(url(endpoint, "reader"))
    assert migrate(client, dry_run=True) == []
    assert client.query("SELECT count() FROM t").first_row == (1_000_000,)
    client.close()


def test_curl_and_what_grafanas_plugin_sends(endpoint: Endpoint) -> None:
    key = PASSWORD.format("reader")
    for known in (
        {"X_ClickHouse_User": "reader", "X_ClickHouse_Key": key},
        {"Authorization": "Basic cmVhZGVyOmEtcGFzc3dvcmQtb2YtcmVhZGVyLTEyMzQ="},
    ):
        assert endpoint.http("/?query=SELECT+1", **known)[::2] == (200, "1\n")
    assert endpoint.http("/?" + urlencode({"query": "SELECT 1", "user": "reader", "password": key}))[::2] == (
        200,
        "1\n",
    )
    # clickhouse-go over HTTP: the setting that the plugin adds to every query, its format, and its way of asking for columns.
    sent = {
        "max_execution_time": "60",
        "default_format": "Native",
        "database": "default",
        "enable_http_compression": "1",
    }
    assert endpoint.ask("reader", "SELECT count() FROM t", **sent)[0] == 200
    sql = "SELECT name, type FROM system.columns WHERE database = 'default' AND table = 't' FORMAT JSON"
    assert '"name": "s"' in endpoint.ask("reader", sql)[1]
    assert endpoint.ask("reader", 'DESC TABLE "default"."t" FORMAT TSV')[1].startswith("a\tInt64")
    assert endpoint.ask("reader", "DESC (SELECT 1 AS x, 'a' AS y) FORMAT TSV")[1].startswith("x\tUInt8")
    assert endpoint.ask("reader", "EXPLAIN SYNTAX SELECT a FROM t")[0] == 200
    status, headers, body = endpoint.http(
        "/?query=SELECT+1+AS+x+FORMAT+CSVWithNames", **{"X_ClickHouse_User": "reader", "X_ClickHouse_Key": key}
    )
    assert (status, headers["X-ClickHouse-Format"], body) == (200, "CSVWithNames", '"x"\n1\n')


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1, 'x')",
        "INSERT INTO t SELECT 1, 'x'",
        "INSERT INTO t FORMAT TSV\n1\tx",
        "INSERT INTO FUNCTION file('{folder}/out', 'TSV', 'a Int8') SELECT 1",
        "CREATE TABLE q (a Int8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE q (a Int8)",
        "CREATE VIEW q AS SELECT 1",
        "CREATE DATABASE q",
        "CREATE FUNCTION q AS (x) -> x",
        "DROP TABLE t",
        "TRUNCATE TABLE t",
        "RENAME TABLE t TO q",
        "EXCHANGE TABLES t AND side.u",
        "ALTER TABLE t DELETE WHERE 1",
        "ALTER TABLE t ADD COLUMN b Int8",
        "DELETE FROM t WHERE 1",
        "UPDATE t SET s = '' WHERE 1",
        "OPTIMIZE TABLE t FINAL",
        "DETACH TABLE t",
        "ATTACH TABLE q FROM '{folder}' (a Int8) ENGINE = MergeTree ORDER BY a",
        "SYSTEM STOP MERGES",
        "SYSTEM FLUSH LOGS",
        "KILL QUERY WHERE 1",
        "SET max_threads = 1",
        "SET readonly = 0",
        "USE side",
        "BACKUP TABLE t TO File('{folder}/b')",
        "GRANT ALL ON *.* TO default",
        "CREATE USER q",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT 1, 'x'",
        "EXPLAIN SELECT * FROM file('{secret}', 'LineAsString')",
        "EXPLAIN AST INSERT INTO t VALUES (1, 'x')",
        "SELECT 1; DROP TABLE t",
        "SELECT 1; SELECT * FROM file('{secret}', 'LineAsString')",
        "SELECT $$'$$; DROP TABLE t; SELECT $$'$$",
        "SELECT 1 /* /* */ '; */; DROP TABLE t -- '",
        "SELECT 1) UNION ALL (SELECT * FROM file('{secret}', 'LineAsString')",
        "SELECT 1\n); DROP TABLE t; SELECT * FROM (EXPLAIN AST SELECT 1",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT * FROM (SELECT 1 SETTINGS max_result_rows = 0)",
        "SELECT 1 INTO OUTFILE '{folder}/out'",
        "SELECT * FROM file('{secret}', 'LineAsString')",
        "SELECT * FROM `file`('{secret}', 'LineAsString')",
        "SELECT file('{secret}')",
        "SELECT * FROM `{secret}`",
        "SELECT * FROM '{secret}'",
        'SELECT * FROM default."{secret}"',
        "SELECT 1 WHERE 'x' IN `{secret}`",
        "SELECT 1 WHERE 'x' IN (`{secret}`)",
        "WITH `{secret}` AS (SELECT 1) SELECT * FROM (SELECT * FROM `{secret}`)",
        "SELECT * FROM `t\n/../../../../../../../..{secret}`",
        "SELECT * FROM `t (alias x/../../../../../../../..{secret})`",
        "DESCRIBE TABLE file('{secret}', 'LineAsString')",
        "DESCRIBE `{secret}`",
        "SELECT * FROM url('http://127.0.0.1:{port}/ping', 'LineAsString')",
        "SELECT * FROM s3('http://127.0.0.1:{port}/a/b', 'TSV')",
        "SELECT * FROM remote('127.0.0.1:{port}', system.one)",
        "SELECT * FROM cluster('default', system.one)",
        "SELECT * FROM executable('id', 'TSV', 'a String')",
        "SELECT * FROM Python(os)",
        "SELECT * FROM sqlite('{folder}/x', 't')",
        "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
        "SELECT * FROM merge('system', '.*')",
        "SELECT * FROM loop(t)",
        "SELECT * FROM view(SELECT * FROM file('{secret}', 'LineAsString'))",
        "SELECT * FROM (EXPLAIN AST SELECT * FROM file('{secret}'))",
        "SELECT (SELECT * FROM file('{secret}', 'RawBLOB'))",
        "SELECT arrayMap(x -> file('{secret}'), [1])",
        "SELECT * FROM system.processes",
        "SELECT * FROM system.query_log",
        "SELECT * FROM system.users",
        "SELECT * FROM nosuch",
        "SELECT * FROM side.nosuch",
        "SELECT catboostEvaluate('{secret}', 1)",
        "SELECT hasColumnInTable('system', 'users', 'name')",
        "SHOW CREATE TABLE system.users",
        "SHOW PROCESSLIST",
        "SHOW GRANTS",
        "CHECK TABLE t",
        "\xff",
    ],
)  # fmt: skip
def test_nothing_but_reading(endpoint: Endpoint, sql: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("TOPSECRET\n")
    text = sql.replace("{secret}", str(secret)).replace("{folder}", str(tmp_path)).replace("{port}", str(endpoint.port))
    status, said = endpoint.ask("reader", text)
    assert status >= 400, said
    assert "TOPSECRET" not in said
    assert said.startswith("Code: ")
    assert [file.name for file in tmp_path.iterdir()] == ["secret.csv"]
    with endpoint.client("steersman") as client:
        assert client.query("SELECT count(), (SELECT count() FROM side.u) FROM t").first_row == (1_000_000, 0)


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"max_threads": "1"}, 200),
        ({"readonly": "2"}, 200),
        ({"readonly": "0"}, 200),
        ({"async_insert": "0"}, 200),
        ({"output_format_json_quote_64bit_integers": "1"}, 200),
        ({"log_comment": "it's"}, 200),
        ({"max_execution_time": "0"}, 200),
        ({"max_result_rows": "1e9"}, 200),
        ({"additional_table_filters": "{}"}, 403),
        ({"allow_ddl": "1"}, 403),
        ({"format_schema": "/etc/passwd"}, 403),
        ({"output_format_schema": "/tmp/x"}, 403),
        ({"user_files_path": "/"}, 403),
        ({"nosuch": "1"}, 403),
        ({"max_threads": "x'"}, None),
        ({"max_threads": "1, readonly = 0"}, None),
        ({"database": "nosuch"}, 404),
        ({"database": "system"}, 404),
        ({"database": "d'; DROP"}, 404),
        ({"compress": "1"}, 501),
        ({"role": "r"}, 501),
    ],
)
def test_parameters_of_the_url(endpoint: Endpoint, params: dict[str, str], status: int | None) -> None:
    code, said = endpoint.ask("reader", "SELECT getSetting('readonly'), getSetting('max_result_rows')", **params)
    assert code == status if status else code >= 400, said
    if code == 200:
        readonly, rows = said.split()[:2] if said[:1].isdigit() else (said.split(",")[0], said)
        assert readonly.strip('"') == "1"
        assert int(rows.strip('"')) <= 1_000_000


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT count() FROM system.numbers WHERE NOT ignore(sipHash64(number))", "TOO_MANY_ROWS|TIMEOUT_EXCEEDED"),
        ("SELECT sleepEachRow(0.3) FROM system.numbers LIMIT 20", "TIMEOUT_EXCEEDED|TOO_SLOW"),
        ("SELECT length(groupArray(repeat('x', 5000))) FROM numbers(150000)", "MEMORY_LIMIT_EXCEEDED"),
        ("SELECT sum(a) FROM t", "TOO_MANY_ROWS"),
        ("SELECT number FROM numbers(5000)", "TOO_MANY_ROWS_OR_BYTES"),
        ("SELECT repeat('x', 500 + number) FROM numbers(900)", "TOO_MANY_ROWS_OR_BYTES"),
    ],
)  # fmt: skip
def test_a_statement_ends_at_its_limits(endpoint: Endpoint, sql: str, says: str) -> None:
    for params in ({}, {"max_execution_time": "0", "max_rows_to_read": "0", "max_memory_usage": "99999999999"}):
        began = time.monotonic()
        status, said = endpoint.ask("narrow", sql, **params)
        assert status >= 400, said
        assert any(f"({name})" in said for name in says.split("|")), said
        assert time.monotonic() - began < 10


def test_readers_never_make_a_writer_wait(endpoint: Endpoint) -> None:
    """Six statements of two seconds on four threads; what the writer sends in the meantime is done at once."""
    asking = [threading.Thread(target=endpoint.ask, args=("reader", "SELECT sleep(2)")) for _ in range(6)]
    for one in asking:
        one.start()
    with endpoint.client("steersman") as client:
        began = time.monotonic()
        client.insert("side.u", [[1]], column_names=["a"], column_type_names=["Int64"])
        client.command("TRUNCATE TABLE side.u")
        took = time.monotonic() - began
    for one in asking:
        one.join()
    assert took < 1.5


def test_who_does_not_say_who_he_is_gets_nothing(endpoint: Endpoint) -> None:
    assert endpoint.http("/ping")[::2] == (200, "Ok.\n")
    status, headers, said = endpoint.http("/?query=SELECT+1")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (401, "194")
    assert "Basic" in headers["WWW-Authenticate"]
    assert "REQUIRED_PASSWORD" in said
    for user, password in (
        ("reader", "wrong"),
        ("nobody", PASSWORD.format("reader")),
        ("default", ""),
        ("reader", PASSWORD.format("acme")),
    ):
        with pytest.raises(Unreachable, match="check the user and password") as refused:
            connect(f"http://{user}:{password}@127.0.0.1:{endpoint.port}")
        assert password not in str(refused.value) or not password
    with pytest.raises(ClickHouseError):
        endpoint.client("reader", database="nosuch")


def test_what_is_not_served_is_said(endpoint: Endpoint) -> None:
    for path in ("/play", "/dashboard", "/metrics", "/a/b"):
        status, _, said = endpoint.http(path)
        assert (status, "serves SQL at /" in said) == (404, True)
    for sql, says in (
        ("CREATE USER u", "chDB has no access control"),
        ("CREATE TEMPORARY TABLE q (a Int8)", "no sessions"),
        ("SELECT 1; SELECT 2", "one by one"),
        ("SELECT * FROM url('http://127.0.0.1:1')", "not of this store"),
        ("CREATE TABLE q (a Int8) ENGINE = File(TSV)", "kept in this store"),
        ("KILL QUERY WHERE 1", "not supported here"),
    ):
        status, said = endpoint.ask("steersman", sql)
        assert (status, says in said) == (501, True), said


def test_a_user_who_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    slow = Endpoint(tmp_path, "--max-per-s", "1")
    try:
        answers = [slow.ask("reader", "SELECT 1")[0] for _ in range(6)]
        assert answers[:4] == [200] * 4
        assert 429 in answers
        assert slow.ask("acme", "SELECT 1")[0] == 200, "others are not told"
        wrong = [slow.http("/?query=SELECT+1&user=reader&password=x") for _ in range(24)]
        assert [status for status, _, _ in wrong[:20]] == [403] * 20
        assert wrong[-1][0] == 429
        assert int(wrong[-1][1]["Retry-After"]) >= 1
    finally:
        assert slow.child.stop() == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--no-login", "--host", "0.0.0.0"], "open to everybody"),
        (["--users", "public.toml"], "chmod 600"),
        (["--users", "empty.toml"], "names nobody"),
        ([], "required"),
    ],
)
def test_it_does_not_start_open_by_mistake(tmp_path: Path, args: list[str], says: str) -> None:
    (tmp_path / "public.toml").write_text(f'[a]\npassword = "{PASSWORD}"')
    (tmp_path / "public.toml").chmod(0o644)
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "empty.toml").chmod(0o600)
    placed = [str(tmp_path / arg) if arg.endswith(".toml") else arg for arg in args]
    child = Child("g", python("console.gateway", "--path", str(tmp_path / "d"), "--port", "0", *placed), tmp_path)
    assert child.wait(60) in (1, 2)
    assert says in child.tail()
