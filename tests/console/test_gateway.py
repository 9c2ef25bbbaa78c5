"""The gateway over real HTTP, with clickhouse-connect and with bare requests as curl makes them."""

from __future__ import annotations

import datetime as dt
import io
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import fastavro
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from benchmarks.avro_container import container, container_header
from console.children import Child, listening, python
from console.gateway.statements import parse
from console.gateway.users import WRITER, make_users, passwords
from serving import codecs
from steersman import contracts
from steersman.codec import Codec

TYPES = {
    "s": ("String", ["a", "ü\0\n", ""]),
    "l": ("LowCardinality(String)", ["x", "y", "x"]),
    "ln": ("LowCardinality(Nullable(String))", ["x", None, ""]),
    "f": ("FixedString(64)", ["0" * 64, "1" * 64, "2" * 64]),
    "i": ("Int64", [-(1 << 63), 0, (1 << 63) - 1]),
    "i32": ("Int32", [-(1 << 31), 0, 1]),
    "u": ("UInt64", [0, 1, (1 << 64) - 1]),
    "n": ("Nullable(Int64)", [None, 1, None]),
    "d": ("Float64", [0.1, -1e300, 0.0]),
    "nd": ("Nullable(Float64)", [0.5, None, 2.0]),
    "b": ("Bool", [True, False, True]),
    "nb": ("Nullable(Bool)", [True, None, False]),
    "t": ("DateTime64(6, 'UTC')", [dt.datetime(2026, 11, 23, 1, 2, 3, 456789, dt.UTC)] * 3),
    "nt": ("Nullable(DateTime64(6, 'UTC'))", [None, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), None]),
    "t0": ("DateTime('UTC')", [dt.datetime(2026, 11, 23, 1, 2, 3, tzinfo=dt.UTC)] * 3),
    "af": ("Array(Float32)", [[0.5, 1.5], [], [2.0]]),
    "ai": ("Array(Int32)", [[1], [], [2, 3]]),
    "as": ("Array(String)", [["a", "b"], [], [""]]),
    "m": ("Map(String, String)", [{"a": "b"}, {}, {"c": ""}]),
}


class Running:
    def __init__(self, folder: Path, *args: str):
        port_file, users = folder / "port", folder / "users.toml"
        make_users(users)
        self.passwords = passwords(users)
        command = python("console.gateway", "--path", str(folder / "data"), "--port", "0", "--users", str(users))
        self.child = Child("gateway", [*command, "--port-file", str(port_file), *args], folder)
        self.child.wait_until(port_file.exists, 30, "writing its port")
        self.port = int(port_file.read_text())
        self.url = f"http://127.0.0.1:{self.port}"

    def client(self, user: str = WRITER, **options: object) -> Client:
        return clickhouse_connect.get_client(
            host="127.0.0.1", port=self.port, username=user, password=self.passwords[user],
            autogenerate_session_id=False, tz_mode="aware", **options,
        )  # fmt: skip

    def http(
        self, path: str = "/", data: bytes | None = None, user: str | None = WRITER, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        known = {} if user is None else {"X-ClickHouse-User": user, "X-ClickHouse-Key": self.passwords[user]}
        sent = {**known, **{k.replace("_", "-"): v for k, v in headers.items()}}
        request = urllib.request.Request(self.url + path, data=data, headers=sent)
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return reply.status, reply.read(), dict(reply.headers)
        except urllib.error.HTTPError as e:
            return e.code, e.read(), dict(e.headers)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("gateway"), "--max-body-mib", "64")
    yield running
    assert running.child.stop() == 0


@pytest.fixture
def client(gateway: Running) -> Iterator[Client]:
    connected = gateway.client()
    yield connected
    connected.close()


@pytest.fixture
def table(client: Client) -> Iterator[str]:
    client.command(
        "CREATE TABLE t (a Int64, s String) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100"
    )
    yield "t"
    client.command("DROP TABLE t")


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
@pytest.mark.parametrize("by_column", [True, False])
def test_every_column_type_there_and_back(gateway: Running, compress: bool | str, by_column: bool):
    with gateway.client(compress=compress) as client:
        client.command("DROP TABLE IF EXISTS every")
        client.command(
            f"CREATE TABLE every (k Int32, {', '.join(f'{n} {t}' for n, (t, _) in TYPES.items())}) ENGINE = MergeTree ORDER BY k"
        )
        columns = [[0, 1, 2], *(list(values) for _, values in TYPES.values())]
        data = columns if by_column else [list(row) for row in zip(*columns, strict=True)]
        done = client.insert(
            "every",
            data,
            column_names=["k", *TYPES],
            column_type_names=["Int32", *(t for t, _ in TYPES.values())],
            column_oriented=by_column,
        )
        assert done.written_rows == 3
        got = client.query("SELECT * FROM every ORDER BY k")
        assert got.result_columns is not None
        for (name, (_, values)), read in zip(TYPES.items(), got.result_columns[1:], strict=True):
            expected = [v.encode() for v in values] if name == "f" else list(values)
            assert list(read) == expected, name
        client.insert("every", [[7]], column_names=["k"])  # types by DESCRIBE
        assert client.command("SELECT count() FROM every") == 4


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_avro_containers_of_encoded_records(client: Client, compression: str | None):
    """What anybody with a topic of ours may insert without decoding it; fields that the table lacks are an error."""
    codec = Codec("alert")
    fields = {f["name"]: f.get("default", "x") for f in contracts.schema("alert")["fields"]}
    record = fields | {
        "alert_id": "ü\0\n",
        "ts": 1_790_000_000_123_456,
        "severity": "WARNING",
        "value": None,
        "threshold": 0.5,
    }
    body = codec.encode(record)[10:]
    columns = "alert_id String, tenant String, ts DateTime64(6, 'UTC'), severity LowCardinality(String), value Nullable(Float64), threshold Nullable(Float64), seq Int32"  # fmt: skip
    client.command(f"CREATE OR REPLACE TABLE alerts_avro ({columns}) ENGINE = MergeTree ORDER BY alert_id")
    data = container(container_header(contracts.schema("alert")), [body] * 3, 3)
    if compression:
        data = codecs.compress(data, compression)
    client.raw_insert("alerts_avro", insert_block=data, fmt="Avro", compression=compression)
    rows = client.query("SELECT * FROM alerts_avro").result_rows
    when = dt.datetime(2026, 9, 21, 14, 13, 20, 123456, dt.UTC)
    assert rows == [("ü\0\n", record["tenant"], when, "WARNING", None, 0.5, record["seq"])] * 3
    with pytest.raises(DatabaseError):
        client.raw_insert("alerts_avro", insert_block=data[:-40], fmt="Avro", compression=compression)
    assert client.command("SELECT count() FROM alerts_avro") == 3


def test_parameters(client: Client):
    text = "it's \\ a\ttab\nand {x:Int32} -- ; ü"
    got = client.query("SELECT {s:String}, {n:Int64} + 1, {a:Array(String)}, {d:DateTime64(6, 'UTC')}, {o:Nullable(Int32)}",
                       parameters={"s": text, "n": 41, "a": ["x'", "y"], "d": dt.datetime(2026, 1, 2, 3, 4, 5, 600, dt.UTC), "o": None}).first_row  # fmt: skip
    assert got == (text, 42, ["x'", "y"], dt.datetime(2026, 1, 2, 3, 4, 5, 600, dt.UTC), None)


def test_parameters_in_a_form(gateway: Running):
    with gateway.client(form_encode_query_params=True) as client:
        assert client.query("SELECT {s:String}, {n:Int32}", parameters={"s": "a'b\n", "n": 3}).first_row == ("a'b\n", 3)


def test_errors_carry_code_and_name(client: Client, table: str):
    for sql, code, name in [("SELECT * FROM nosuch", 60, "UNKNOWN_TABLE"), ("SELEC 1", 62, "SYNTAX_ERROR"), ("SELECT throwIf(1)", 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO")]:  # fmt: skip
        with pytest.raises(DatabaseError) as caught:
            client.query(sql)
        assert (caught.value.code, caught.value.name) == (code, name)
    with pytest.raises(DatabaseError, match="UNKNOWN_DATABASE"):
        client.query("SELECT 1", settings={"database": "nosuch"})
    with pytest.raises(DatabaseError) as caught:
        client.insert("t", [[1]], column_names=["nosuch"], column_type_names=["Int64"])
    assert caught.value.code == 16
    with pytest.raises(DatabaseError) as caught:
        client.raw_insert("t", insert_block=b'{"a": "x"}', fmt="JSONEachRow")
    assert caught.value.code == 27
    assert client.query("SELECT 1").first_row == (1,), "and it goes on"


def test_failed_write_is_an_error(client: Client, table: str):
    """Of the ways into chDB one loses these without a word; this is the other."""
    client.command("ALTER TABLE t ADD CONSTRAINT c CHECK a > 5")
    with pytest.raises(DatabaseError, match="VIOLATED_CONSTRAINT"):
        client.insert("t", [[1, "x"]], column_names=["a", "s"])
    client.command("SYSTEM STOP MERGES t")
    client.command("ALTER TABLE t MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1")
    client.insert("t", [[6, "x"]], column_names=["a", "s"])
    with pytest.raises(DatabaseError) as caught:
        client.insert("t", [[7, "x"]], column_names=["a", "s"])
    assert (caught.value.code, caught.value.name) == (252, "TOO_MANY_PARTS")


def test_settings_belong_to_one_statement(client: Client, table: str):
    assert client.query("SELECT getSetting('max_threads')", settings={"max_threads": 3}).first_row == (3,)
    assert client.query("SELECT getSetting('max_threads')").first_row != (3,)
    client.command("SET max_threads = 3")
    assert client.query("SELECT getSetting('max_threads')").first_row != (3,), "there are no sessions"
    with pytest.raises(DatabaseError, match="UNKNOWN_SETTING"):
        client.raw_query("SELECT 1", settings=None) and client.command("SET nosuch = 1")
    for _ in range(2):
        client.insert("t", [[1, "x"]], column_names=["a", "s"], settings={"insert_deduplication_token": "one"})
    client.insert("t", [[1, "x"]], column_names=["a", "s"], settings={"insert_deduplication_token": "two"})
    assert client.command("SELECT count() FROM t") == 2


def test_read_only_is_for_one_statement(client: Client, table: str):
    for _ in range(6):
        assert client.query("SELECT 1", settings={"readonly": 2}).result_rows == [(1,)]
        with pytest.raises(DatabaseError, match="READONLY"):
            client.query(f"DROP TABLE {table}", settings={"readonly": 2})
    client.insert(table, [[1, "x"]], column_names=["a", "s"])


def test_raw_inserts(client: Client, table: str):
    block = io.BytesIO()
    schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}, {"name": "s", "type": "string"}]}
    fastavro.writer(block, schema, ({"a": i, "s": f"s{i}"} for i in range(5000)))
    assert client.raw_insert("t", insert_block=block.getvalue(), fmt="Avro").written_rows == 5000
    client.raw_insert("t", column_names=["a"], insert_block=b'{"a": -1}\n{"a": -2}', fmt="JSONEachRow")
    client.raw_insert("t", insert_block=codecs.compress(b"-3\tx\n", "gzip"), fmt="TSV", compression="gzip")
    native = client.raw_query("SELECT toInt64(-4) AS a, 'y' AS s", fmt="Native")
    client.raw_insert("t", insert_block=iter([native[:5], native[5:]]), fmt="Native")  # type: ignore[arg-type]
    assert client.query("SELECT count(), min(a), max(s) FROM t").first_row == (5004, -4, "y")


def test_big_results_and_streams(client: Client):
    got = client.query("SELECT number, repeat('x', 50) FROM numbers(500000)")
    assert got.result_columns is not None
    assert len(got.result_columns[0]) == 500_000
    assert sum(got.result_columns[0]) == 500_000 * 499_999 // 2
    with client.query_row_block_stream("SELECT number FROM numbers(300000)") as stream:
        assert sum(len(block) for block in stream) == 300_000


def test_concurrent_clients(gateway: Running, client: Client, table: str):
    failures: list[BaseException] = []

    def work(n: int) -> None:
        try:
            with gateway.client() as mine:
                for i in range(20):
                    mine.insert(
                        "t",
                        [[n * 1000 + i, "x"]],
                        column_names=["a", "s"],
                        settings={"insert_deduplication_token": f"{n}-{i}"},
                    )
                    value = mine.query(
                        "SELECT {n:Int32}, getSetting('max_threads')",
                        parameters={"n": n},
                        settings={"max_threads": n + 1},
                    ).first_row
                    assert value == (n, n + 1)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert client.query("SELECT count(), uniqExact(a) FROM t").first_row == (120, 120)


def test_commands_and_databases(client: Client, gateway: Running):
    client.command("CREATE DATABASE IF NOT EXISTS other")
    client.command("CREATE TABLE other.x (a Int8) ENGINE = MergeTree ORDER BY a")
    with gateway.client(database="other") as other:
        other.insert("x", [[1], [2]], column_names=["a"])
        assert other.query("SELECT count() FROM x").first_row == (2,)
    assert client.command("SELECT a FROM other.x WHERE a > 5") == ""
    assert client.query("SELECT * FROM other.x LIMIT 0").column_names == ("a",)
    client.command("DROP DATABASE other")


def test_as_curl_would(gateway: Running):
    assert gateway.http("/ping")[:2] == (200, b"Ok.\n")
    assert gateway.http("/")[:2] == (200, b"Ok.\n")
    assert gateway.http("/?query=SELECT+1")[:2] == (200, b"1\n")
    assert gateway.http(data=b"SELECT 1 + 1, 'a' FORMAT JSONCompactEachRow")[:2] == (200, b'[2, "a"]\n')
    status, body, headers = gateway.http("/?query=SELECT+number+FROM+numbers(3)&default_format=CSV&query_id=q1")
    assert (status, body, headers["X-ClickHouse-Format"], headers["X-ClickHouse-Query-Id"]) == (
        200,
        b"0\n1\n2\n",
        "CSV",
        "q1",
    )
    assert '"result_rows": "3"' in headers["X-ClickHouse-Summary"]
    assert gateway.http("/?query=SELECT+{x:Int32}&param_x=5", data=b"")[:2] == (200, b"5\n")
    status, body, headers = gateway.http("/?query=DROP+TABLE+x")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (403, "164")
    status, body, headers = gateway.http(data=b"SELECT * FROM nosuch")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (404, "60")
    assert body.startswith(b"Code: 60. DB::Exception: ")
    assert b"(UNKNOWN_TABLE) (version 26." in body


def test_what_a_browser_or_a_thief_could_send_is_refused(gateway: Running, tmp_path: Path):
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        status, body, _ = gateway.http(data=b"SELECT 1", **headers)
        assert (status, b"--allow-host" in body) == (403, True)
    assert gateway.http(data=b"SELECT 1", Origin=gateway.url)[0] == 200
    secret = tmp_path / "secret"
    secret.write_text("s")
    for sql in (
        f"INSERT INTO FUNCTION null('a String') FROM INFILE '{secret}' FORMAT TSV",
        f"SELECT 1 INTO OUTFILE '{secret}' TRUNCATE",
    ):
        status, body, _ = gateway.http(data=sql.encode())
        assert (status, b"SUPPORT_IS_DISABLED" in body) == (501, True)
    assert gateway.http(data=b"SELECT 'INTO OUTFILE'")[1] == b"INTO OUTFILE\n"
    assert secret.read_text() == "s"


def test_bodies_are_capped_before_and_after_decompression(gateway: Running):
    assert gateway.http(data=b" " * (65 << 20))[0] == 413
    bomb = codecs.compress(b" " * (65 << 20), "gzip")
    assert len(bomb) < 1 << 20
    assert gateway.http(data=bomb, Content_Encoding="gzip")[0] == 413
    assert gateway.http(data=b"SELECT 1", Content_Encoding="gzip")[0] == 400
    assert gateway.http(data=b"SELECT 1", Content_Encoding="snappy")[0] == 400


@pytest.mark.parametrize("encoding", ["lz4", "zstd", "gzip", "deflate"])
def test_encodings(encoding: str):
    data = bytes(range(256)) * 50
    packed = codecs.compress(data, encoding)
    assert codecs.decompress(packed + packed, encoding, 1 << 20) == data + data, "one frame per block"
    with pytest.raises(codecs.TooLarge):
        codecs.decompress(packed, encoding, len(data) - 1)
    with pytest.raises(codecs.Unsupported):
        codecs.decompress(packed[:-6], encoding, 1 << 20)


@pytest.mark.parametrize(
    ("query", "sql", "settings", "fmt", "data"),
    [
        (b"INSERT INTO t (`format`, a) FORMAT Native\n\x01\x02", b"INSERT INTO t (`format`, a) ", b"", "Native", b"\x01\x02"),
        (b"insert into t format CSV 1,2", b"insert into t ", b"", "CSV", b"1,2"),
        (b"INSERT INTO t SETTINGS a = 'FORMAT X' FORMAT TSV\r\n\n1", b"INSERT INTO t ", b"SETTINGS a = 'FORMAT X' ", "TSV", b"\n1"),
        (b"-- FORMAT x\nINSERT INTO t /* FORMAT y */ FORMAT JSONEachRow\n{}", b"-- FORMAT x\nINSERT INTO t /* FORMAT y */ ", b"", "JSONEachRow", b"{}"),
    ],
)  # fmt: skip
def test_inserts_are_split_at_their_format(query: bytes, sql: bytes, settings: bytes, fmt: str, data: bytes):
    got = parse(query)
    assert (got.sql, got.insert_settings, got.insert_format, got.data) == (sql, settings, fmt, data)


def test_other_statements_stay_whole():
    for query in (
        b"INSERT INTO t VALUES (' FORMAT CSV 1')",
        b"INSERT INTO t SELECT 1 FORMAT Null",
        b"SELECT 1 FORMAT JSON",
    ):
        assert (parse(query).insert_format, parse(query).sql) == (None, query)
    assert parse(b"SELECT 1 FORMAT JSON").result_format == "JSON"
    assert parse(b"SELECT 1\n FORMAT Native SETTINGS max_threads = 1;").result_format == "Native"
    assert parse(b"SELECT ' FORMAT CSV'").result_format is None
    assert [parse(q).reads for q in (b"/* */ with 1 as x select x", b"(SELECT 1)", b"DROP TABLE t", b"")] == [
        True,
        True,
        False,
        False,
    ]


def test_second_process_on_the_folder_and_taken_port(gateway: Running, tmp_path: Path):
    other = Child(
        "other",
        python("console.gateway", "--no-login", "--path", str(gateway.child.log.parent / "data"), "--port", "0"),
        tmp_path,
    )
    assert other.wait(30) == 2
    assert "one process per folder" in other.tail()
    other = Child(
        "port",
        python("console.gateway", "--no-login", "--path", str(tmp_path / "d"), "--port", str(gateway.port)),
        tmp_path,
    )
    assert other.wait(30) == 2
    assert f"port {gateway.port} is taken" in other.tail()


def test_data_survive_kill_and_termination(tmp_path: Path):
    first = Running(tmp_path)
    with first.client() as client:
        client.command("CREATE TABLE k (a Int64) ENGINE = MergeTree ORDER BY a")
        client.insert("k", [[i] for i in range(1000)], column_names=["a"])
    first.child.kill()
    (tmp_path / "port").unlink()
    second = Running(tmp_path)
    with second.client() as client:
        assert client.command("SELECT sum(a) FROM k") == 499_500
    assert second.child.stop() == 0
    assert not listening(second.port)
    assert not (tmp_path / "port").exists()
