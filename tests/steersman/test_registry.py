"""The optional registry client against a small server that speaks the registry's routes over real HTTP."""

from __future__ import annotations

import json
import re
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from schemas.compatibility import disagreements
from steersman import contracts, registry
from steersman.codec import SCHEMA_ID_HEADER, Codec
from steersman.errors import ConfigError, DecodeError, SteersmanError, Unreachable
from steersman.subscriber import PolicySubscriber
from steersman.topics import Topics


@pytest.fixture(scope="module", autouse=True)
def client_packages() -> None:
    pytest.importorskip("confluent_kafka.schema_registry", reason="the registry client's packages are not installed")


class Server(ThreadingHTTPServer):
    """Subjects, ids and GUIDs in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.schemas: list[dict[str, Any]] = []  # id = place + 1
        self.subjects: dict[str, list[int]] = {}
        self.levels: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.broken = False

    def add(self, subject: str, schema: dict[str, Any]) -> int:
        if schema not in self.schemas:
            self.schemas.append(schema)
        number = self.schemas.index(schema) + 1
        if number not in self.subjects.setdefault(subject, []):
            self.subjects[subject].append(number)
        return number


def guid(number: int) -> str:
    return str(uuid.UUID(int=number))


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked[path] += 1
        if self.server.broken:
            self.answer(500, {"error_code": 50001, "message": "broken"})
        elif found := re.fullmatch(r"/schemas/ids/(\d+)", path):
            self.schema(int(found[1]))
        elif found := re.fullmatch(r"/schemas/guids/([0-9a-f-]+)", path):
            self.schema(uuid.UUID(found[1]).int)
        elif (found := re.fullmatch(r"/config/([^/]+)", path)) and found[1] in self.server.levels:
            self.answer(200, {"compatibilityLevel": self.server.levels[found[1]]})
        else:
            self.answer(404, {"error_code": 404, "message": path})

    def schema(self, number: int) -> None:
        if not 0 < number <= len(self.server.schemas):
            self.answer(404, {"error_code": 40403, "message": "Schema not found"})
            return
        text = json.dumps(self.server.schemas[number - 1])
        self.answer(200, {"schema": text, "schemaType": "AVRO", "id": number, "guid": guid(number)})

    def do_POST(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked[path] += 1
        schema = json.loads(self.body()["schema"])
        subject = path.split("/")[2]
        if path.endswith("/versions"):
            older = [self.server.schemas[n - 1] for n in self.server.subjects.get(subject, [])]
            if any(past["name"] != schema["name"] or disagreements(past, schema, 20) for past in older):
                self.answer(409, {"error_code": 409, "message": "incompatible with an earlier schema"})
                return
            number = self.server.add(subject, schema)
        elif schema in self.server.schemas and (
            self.server.schemas.index(schema) + 1 in self.server.subjects.get(subject, [])
        ):
            number = self.server.schemas.index(schema) + 1
        else:
            self.answer(404, {"error_code": 40403, "message": "Schema not found"})
            return
        version = self.server.subjects[subject].index(number) + 1
        text = json.dumps(schema)
        self.answer(200, {"subject": subject, "version": version, "id": number, "guid": guid(number), "schema": text})

    def do_PUT(self) -> None:
        self.server.levels[self.path.split("/")[2]] = self.body()["compatibility"]
        self.answer(200, {"compatibility": self.server.levels[self.path.split("/")[2]]})

    def body(self) -> dict[str, Any]:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(content, dict)
        return content

    def answer(self, status: int, content: dict[str, Any]) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests count requests themselves."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ids(server: Server, clock: Clock) -> Iterator[registry.Registry]:
    opened = registry.Registry(server.url, topics=Topics("t"), clock=clock)
    yield opened
    opened.close()


EVENT = {"event_id": "e", "trace_id": "a", "span_id": "b", "kind": "END", "ts": 1}


def test_an_audit_says_what_is_missing_and_changes_nothing(server: Server, ids: registry.Registry) -> None:
    assert {(one.missing == one.wanted, one.compatibility) for one in ids.audit()} == {(True, "")}
    assert server.subjects == {}
    ids.register()
    assert {(one.missing, one.compatibility) for one in ids.audit()} == {(0, "FULL_TRANSITIVE")}
    server.levels["t.reward.v1-value"] = "NONE"
    del server.subjects["t.trace.v1-value"]
    fresh = registry.Registry(server.url, topics=Topics("t"))
    found = {one.subject: (one.missing, one.compatibility) for one in fresh.audit()}
    assert found["t.reward.v1-value"] == (0, "NONE")
    assert found["t.trace.v1-value"][0] > 0
    fresh.close()
    server.shutdown()
    server.server_close()
    late = registry.Registry(server.url, topics=Topics("t"), timeout_s=1.0)
    with pytest.raises(Unreachable):
        late.audit()
    late.close()


def test_register_then_write_and_read_by_id_and_guid(server: Server, ids: registry.Registry) -> None:
    done = ids.register()
    versions = {
        subject: len({json.dumps(written) for written in contracts.versions(name)})
        for name, subject in registry.subjects(Topics("t")).items()
    }
    assert Counter(entry.subject for entry in done) == versions
    assert set(server.levels.values()) == {"FULL_TRANSITIVE"}
    assert len(server.levels) == len(contracts.NAMES)
    assert ids.register() == done, "repeating it changes nothing"
    codec = Codec("trace_event", registry=ids)
    number = server.subjects["t.trace.v1-value"][0]
    value = codec.encode(EVENT)
    assert value[:5] == b"\x00" + number.to_bytes(4, "big")
    fresh = Codec("trace_event", registry=ids)
    header = b"\x01" + uuid.UUID(guid(number)).bytes
    assert fresh.decode(value)["event_id"] == fresh.decode(value[5:], [(SCHEMA_ID_HEADER, header)])["event_id"] == "e"


def test_services_never_register(server: Server, ids: registry.Registry, clock: Clock) -> None:
    codec = Codec("trace_event", registry=ids)
    for _ in range(3):
        assert codec.encode(EVENT)[:2] == b"\xc3\x01", "not registered: the framing that needs no registry"
    assert server.subjects == {}
    assert server.asked == {"/subjects/t.trace.v1-value": 1}, "asked once, then the negative answer is kept"
    server.add("t.trace.v1-value", contracts.schema("trace_event"))
    clock.now += registry.RETRY_S
    assert codec.encode(EVENT)[0] == 0


def test_a_schema_of_another_topic_is_not_accepted(server: Server, ids: registry.Registry) -> None:
    foreign = {**contracts.schema("trace_event"), "fields": contracts.schema("trace_event")["fields"][:-1]}
    number = server.add("somebody-else-value", foreign)
    codec = Codec("trace_event", registry=ids)
    with pytest.raises(DecodeError, match="unknown_schema"):
        codec.decode(b"\x00" + number.to_bytes(4, "big") + b"x")
    server.add("t.trace.v1-value", foreign)
    assert (
        Codec("trace_event", registry=registry.Registry(server.url, topics=Topics("t"))).decode(
            b"\x00" + number.to_bytes(4, "big") + Codec("trace_event").encode(EVENT)[10:-1]
        )["event_id"]
        == "e"
    )


def test_unknown_ids_are_not_asked_for_without_end(server: Server, ids: registry.Registry, clock: Clock) -> None:
    codec = Codec("trace_event", registry=ids)
    for number in range(1, registry.MAX_UNKNOWN + 100):
        for _ in range(2):
            with pytest.raises(DecodeError, match="unknown_schema"):
                codec.decode(b"\x00" + number.to_bytes(4, "big") + b"x")
    assert sum(server.asked.values()) == registry.MAX_UNKNOWN
    clock.now += registry.RETRY_S
    with pytest.raises(DecodeError, match="unknown_schema"):
        codec.decode(b"\x00\x00\x00\xff\xffx")
    assert sum(server.asked.values()) == registry.MAX_UNKNOWN + 1
    assert ids.failures == 0


def test_a_broken_or_absent_registry_stops_nobody(server: Server, ids: registry.Registry) -> None:
    server.broken = True
    assert ids.schema_by_id("trace_event", 1) is None
    assert ids.failures == 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        absent = registry.Registry(f"http://127.0.0.1:{taken.getsockname()[1]}", timeout_s=0.5)
        assert Codec("trace_event", registry=absent).encode(EVENT)[:2] == b"\xc3\x01"
        assert absent.failures == 1
        with pytest.raises(Unreachable, match="schema registry at http://127"):
            absent.register()
        absent.close()


def test_an_incompatible_subject_is_named(server: Server, ids: registry.Registry) -> None:
    server.add("t.reward.v1-value", {"type": "record", "name": "Other", "fields": []})
    with pytest.raises(SteersmanError, match=r"refuses version 1 of reward under t\.reward\.v1-value"):
        ids.register()


def test_credentials_are_not_in_messages() -> None:
    with pytest.raises(ConfigError) as error:
        registry.Registry("ftp://user:secret@host")
    assert "secret" not in str(error.value)
    assert "host" in str(error.value)


def test_a_service_finds_the_registry_in_its_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEERSMAN_REGISTRY_URL", raising=False)
    assert registry.from_environment(Topics("t")) is None
    monkeypatch.setenv("STEERSMAN_REGISTRY_URL", server.url)
    found = registry.from_environment(Topics("t"))
    assert found is not None
    found.register()
    assert found.id_for("policy_snapshot") is not None
    assert "t.policy.v1-value" in server.subjects
    found.close()
    monkeypatch.setenv("STEERSMAN_REGISTRY_URL", "registry:8081")
    with pytest.raises(ConfigError, match="STEERSMAN_REGISTRY_URL"):
        PolicySubscriber("127.0.0.1:1")


def test_command_registers(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("STEERSMAN_REGISTRY_URL", raising=False)
    assert registry.main() == 0
    monkeypatch.setenv("STEERSMAN_REGISTRY_URL", server.url)
    monkeypatch.setenv("STEERSMAN_TOPIC_PREFIX", "t")
    assert registry.main() == 0
    assert "t.policy.v1-value version 1: id" in capsys.readouterr().out
    monkeypatch.setenv("STEERSMAN_REGISTRY_URL", "http://127.0.0.1:1")
    assert registry.main() == 3
    assert "cannot reach" in capsys.readouterr().err
