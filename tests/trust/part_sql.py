"""SQL in every parameter of the page, the doors, the ClickHouse endpoint and the console's commands: all of it is text.

A parameter is asked once for something that does not exist and once for each payload. A payload is a hit when it is answered
otherwise than what does not exist, when it is slower by seconds, when what is stored is not what was sent, when an answer holds a
row of another tenant, or when, at the end, a table, a view or a row is not what it was.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from clickhouse_connect.driver.exceptions import ClickHouseError
from typer.testing import CliRunner

from console.gateway.users import READER, passwords
from console.main import app
from console.tenants.statements import script, tenant
from sinks.clickhouse import connect
from steersman.errors import SteersmanError
from tests.doors.payloads import request as otlp
from tests.doors.served import post
from tests.trust.injections import PAYLOADS
from tests.trust.part import Found, Say
from tests.trust.running import Running, running

QUICK = 10
SECRET = "of-globex-alone"
SLOW_S = 2.5
"""Longer than any answer here takes, shorter than the sleep that some payloads ask for."""
NOTHING = "nothing-of-this-name"
FORMATS = frozenset({"NULL"})
"""Texts that are names of formats."""
_SCHEMA = "SELECT database, name, engine, total_rows FROM system.tables WHERE database = 'default' ORDER BY name"
Ask = Callable[[str], str]
"""Puts a text into a parameter and returns what is answered, without the text itself."""


class Attack:
    """What was asked, and what came of it."""

    def __init__(self, loop: Running, texts: tuple[str, ...]) -> None:
        self._loop, self._texts = loop, texts
        self.parameters: Counter[str] = Counter()
        self.hits: list[str] = []

    def compare(self, name: str, ask: Ask, known: frozenset[str] = frozenset()) -> None:
        """Ask a parameter for every text but those that exist; each must be answered as what does not exist."""
        usual = ask(NOTHING)
        for text in self._texts:
            if text in known:
                continue
            started = time.monotonic()
            answer = ask(text)
            self.parameters[name] += 1
            if answer != usual:
                self.hits.append(f"{name}: {text!r} is answered {answer[:300]!r} instead of {usual[:300]!r}")
            if time.monotonic() - started > SLOW_S:
                self.hits.append(f"{name}: {text!r} took {time.monotonic() - started:.1f} s")
            if SECRET in answer:
                self.hits.append(f"{name}: {text!r} shows a row of another tenant")

    def page(self) -> None:
        """Paths and parameters of the live page."""
        parts = urlsplit(self._loop.page)
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)

        def get(form: str) -> Ask:
            def ask(text: str) -> str:
                connection.request("GET", form.format(quote(text, safe="")))
                reply = connection.getresponse()
                body = reply.read().decode()
                return f"{reply.status} {'ClickHouse refused' in body} {SECRET if SECRET in body else ''}"

            return ask

        for form in (
            "/trace/{}",
            "/policy/{}",
            "/policy/team%2Fanswers?new={}",
            "/policy/team%2Fanswers?old={}",
            "/static/{}",
        ):
            self.compare(f"page {form}", get(form))
        connection.close()

    def doors(self) -> None:
        """Fields of feedback and attributes of spans: stored as they were sent, ids refused."""

        def send(fields: dict[str, Any]) -> str:
            body = json.dumps(fields).encode()
            status, _, reply = post(self._loop.doors, "/v1/feedback", body, Content_Type="application/json")
            return f"{status} {json.loads(reply).get('reason', '')}"

        for field in ("decision_id", "trace_id", "tenant"):
            at = {} if field == "trace_id" else {"trace_id": "ab" * 16}
            self.compare(f"feedback {field}", lambda text, field=field, at=at: send({**at, field: text, "value": 1}))  # type: ignore[misc]
        known = {"trace_id": "cd" * 16}
        for field in ("metric", "label", "source", "session_id", "id", "comment"):
            self.compare(f"feedback {field}", lambda text, field=field: send({**known, "value": 1, field: text}))  # type: ignore[misc]
        self._stored("feedback", lambda i, text: send({"trace_id": f"{i + 1:032x}", "metric": text, "label": text, "source": text,
                                                       "session_id": text, "value": 1}),
                     "SELECT trace_id, [metric, label, source, session_id] FROM v_events WHERE kind = 'FEEDBACK' AND metric LIKE '%_'"
                     " AND trace_id LIKE '0000%'")  # fmt: skip

        def span(i: int, text: str) -> str:
            attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": text, "gen_ai.agent.name": text,
                          "gen_ai.conversation.id": text}  # fmt: skip
            sent = otlp(attributes, name=text, trace=f"{i + 1:032x}", span=f"{i + 1:016x}").SerializeToString()
            return str(post(self._loop.doors, "/v1/traces", sent, Content_Type="application/x-protobuf")[0])

        self._stored(
            "span", span,
            "SELECT trace_id, [operation, agent, session_id] FROM v_events WHERE kind = 'TOOL_CALL' AND trace_id LIKE '0000%'",
        )  # fmt: skip

    def _stored(self, name: str, send: Callable[[int, str], str], sql: str) -> None:
        """Send every text and read it back."""
        for i, text in enumerate(self._texts):
            if not send(i, text).startswith("200"):
                self.hits.append(f"{name}: {text!r} is not taken")
        count = f"SELECT count() FROM ({sql})"
        if not self._loop.await_rows(count, len(self._texts)):
            self.hits.append(f"{name}: not everything that was taken reached the store")
        with contextlib.closing(connect(self._loop.gateway.reading)) as client:
            found = dict(client.query(sql).result_rows)
        for i, text in enumerate(self._texts):
            self.parameters[f"{name}, read back"] += 1
            values = found.get(f"{i + 1:032x}", [])
            if set(values) != {text}:
                self.hits.append(f"{name}: {text!r} was stored as {values}")

    def endpoint(self) -> None:
        """Parameters and headers of the ClickHouse endpoint, of a user who reads and of one who writes."""
        for url in (self._loop.gateway.reading, self._loop.gateway.url):
            with contextlib.closing(connect(url)) as client:
                for text in self._texts:
                    self.parameters["endpoint parameter"] += 1
                    sql = "SELECT {p:String}, (SELECT count() FROM v_events WHERE tenant = {p:String})"
                    if client.query(sql, parameters={"p": text}).result_rows != [(text, 0)]:
                        self.hits.append(f"endpoint parameter: {text!r} is not what came back")
                    try:
                        client.query("SELECT * FROM {p:Identifier}", parameters={"p": text})
                        self.hits.append(f"endpoint identifier: {text!r} is a table")
                    except ClickHouseError:
                        self.parameters["endpoint identifier"] += 1
        key = passwords(self._loop.gateway.users)[READER]

        def ask(path: str = "/?query=SELECT+1", **headers: str) -> str:
            known = {"X-ClickHouse-User": READER, "X-ClickHouse-Key": key}
            sent = {**known, **{k.replace("_", "-"): v for k, v in headers.items()}}
            connection = http.client.HTTPConnection("127.0.0.1", self._loop.gateway.port, timeout=20)
            try:
                connection.request("GET", path, headers={k: v.encode() for k, v in sent.items()})
                reply = connection.getresponse()
                body = reply.read().decode("utf-8", "replace")
                return f"{reply.status} {reply.getheader('X-ClickHouse-Exception-Code')} {SECRET if SECRET in body else ''}"
            finally:
                connection.close()

        def url(**more: str) -> str:
            return "/?" + urlencode({"query": "SELECT 1", **more})

        self.compare("endpoint database", lambda text: ask(url(database=text)))
        self.compare("endpoint query_id", lambda text: ask(url(query_id=text)))
        self.compare("endpoint default_format", lambda text: ask(url(default_format=text)), FORMATS)
        self.compare("endpoint name of a setting", lambda text: ask(url(**{f"s{text}": "1"})))
        self.compare("endpoint value of a setting", lambda text: ask(url(log_comment=text)))
        self.compare("endpoint session_timezone", lambda text: ask(url(session_timezone=text)))
        self.compare("endpoint limit", lambda text: ask(url(max_execution_time=text)))
        self.compare("endpoint X-ClickHouse-Database", lambda text: ask(X_ClickHouse_Database=text))
        self.compare("endpoint X-ClickHouse-Format", lambda text: ask(X_ClickHouse_Format=text), FORMATS)

    def login(self) -> None:
        """Names and passwords of the endpoint; beyond a burst, failures are told to come again."""
        port = self._loop.gateway.port
        for way in ("user", "password"):

            def ask(text: str, way: str = way) -> str:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                connection.request(
                    "GET", "/?" + urlencode({"query": "SELECT 1", "user": READER, "password": "x", way: text})
                )
                status = connection.getresponse().status
                connection.close()
                return "refused" if status in (403, 429) else str(status)

            self.compare(f"endpoint {way}", ask)

    def console(self) -> None:
        """Arguments and options of the console's commands that ask the store, and the SQL for tenants."""
        runner = CliRunner()

        def run(*command: str) -> str:
            done = runner.invoke(app, list(command))
            known = isinstance(done.exception, SteersmanError | SystemExit) or done.exception is None
            said = type(done.exception).__name__ if done.exception is not None else done.stdout
            return f"{done.exit_code} {known} {said}"

        brokers = ("--brokers", "127.0.0.1:1")
        commands: dict[str, Ask] = {
            "policy history NAME": lambda text: run("policy", "history", "--json", "--", text),
            "policy history --tenant": lambda text: run(
                "policy", "history", "team/answers", "--json", "--tenant", text
            ),
            "policy events NAME": lambda text: run("policy", "events", "--json", "--", text),
            "policy events --tenant": lambda text: run("policy", "events", "team/answers", "--json", "--tenant", text),
            "ope NAME": lambda text: run("ope", "--target", "uniform", "--json", *brokers, "--", text),
            "ope --tenant": lambda text: run(
                "ope", "team/answers", "--target", "uniform", "--json", *brokers, "--tenant", text
            ),
            "ope --target": lambda text: run("ope", "team/answers", "--json", *brokers, f"--target={text}"),
        }
        for name, ask in commands.items():
            self.compare(f"console {name}", ask)
        for text in self._texts:
            self.parameters["console tenants sql"] += 1
            named = text if text.isprintable() and text == text.strip() else text.replace("\t", " ").strip()
            with contextlib.closing(connect(self._loop.gateway.url)) as client:
                for statement in tenant(named, named):
                    one = client.query(
                        "SELECT formatQuerySingleLine({s:String})", parameters={"s": statement}
                    ).result_rows
                    if not one[0][0].startswith(statement.split()[0]):
                        self.hits.append(f"console tenants sql: {text!r} makes {one}")
            assert script(tenant(named, named)).count(";\n") >= len(tenant(named, named))


def run(quick: bool, seed: int, say: Say) -> Found:
    """Put every text into every parameter, and look whether anything but text came of it."""
    texts = PAYLOADS[:: len(PAYLOADS) // QUICK] if quick else PAYLOADS
    before = {name: os.environ.get(name) for name in ("STEERSMAN_CLICKHOUSE_URL", "STEERSMAN_BROKERS")}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as held:
        loop = held.enter_context(
            running(
                Path(folder), lambda step: say(f"sql: {step}"), kafka=False, page={"STEERSMAN_PAGE_MAX_PER_S": "0"},
                doors={"STEERSMAN_DOORS_CAPTURE_CONTENT": "true", "STEERSMAN_DOORS_MAX_PER_S": "0", "STEERSMAN_OTLP_TOPIC": ""},
            )
        )  # fmt: skip
        now = time.time_ns() // 1000
        theirs = {"tenant": "globex", "trace_id": "ef" * 16, "ts": now}
        policy = {"epoch": 1, "version": 1, "created_at": now, "knobs": [{"name": "model", "levels": ['"a"', '"b"']}]}
        loop.produce(
            [
                ("trace_event", {**theirs, "event_id": "e", "span_id": "1" * 16, "kind": "AGENT", "agent": SECRET}),
                ("policy_snapshot", {**policy, "tenant": "globex", "policy": f"team/{SECRET}"}),
                ("policy_snapshot", {**policy, "tenant": "default", "policy": "team/answers"}),
            ]
        )  # fmt: skip
        if not loop.await_rows("SELECT count() FROM v_policies", 2):
            return Found({"sql_payloads": 0, "sql_hits": 0}, ["the store never had what was to be protected"])
        with contextlib.closing(connect(loop.gateway.url)) as client:
            client.command("CREATE TABLE canary (x Int8) ENGINE = MergeTree ORDER BY x")
            client.command("INSERT INTO canary VALUES (1)")
            schema = [row[:3] for row in client.query(_SCHEMA).result_rows]
        os.environ.update(STEERSMAN_CLICKHOUSE_URL=loop.gateway.reading, STEERSMAN_BROKERS=loop.brokers)
        attack = Attack(loop, texts)
        try:
            for part in (attack.page, attack.doors, attack.endpoint, attack.console, attack.login):
                say(f"sql: {part.__name__}, {len(texts)} payloads in each parameter")
                part()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        with contextlib.closing(connect(loop.gateway.url)) as client:
            if [row[:3] for row in client.query(_SCHEMA).result_rows] != schema:
                attack.hits.append("tables or views are not what they were")
            if client.query("SELECT groupArray(x) FROM canary").result_rows != [([1],)]:
                attack.hits.append("the canary's rows are not what they were")
            if client.query("SELECT count() FROM v_events WHERE tenant = 'globex'").result_rows != [(1,)]:
                attack.hits.append("rows of another tenant are not what they were")
    if Path("/tmp/steersman-sql-payload").exists():
        attack.hits.append("a payload wrote a file")
    sent = sum(attack.parameters.values())
    totals = {
        "sql_payloads": len(texts),
        "sql_sent": sent,
        "sql_parameters": len(attack.parameters),
        "sql_hits": len(attack.hits),
    }
    return Found(totals, attack.hits[:20], {"by_parameter": dict(attack.parameters)})
