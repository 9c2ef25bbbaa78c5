"""Credentials planted everywhere a deployment has one, through a full run; then searched for in all that comes out.

Apache Kafka with SCRAM and mTLS, both stages with a signing key, one of them with a locked client key, sink, doors with tokens of
two tenants, page with a token, ClickHouse endpoint with passwords, an agent. Each does its work, is asked with the wrong credentials,
and some are started with credentials that do not work, since errors talk. What is searched: all logs, every answer over HTTP,
``/metrics``, what commands print (``config show``, doctor, status, ...), command lines of the processes, every record of every topic,
every row of every table. A control searches where the credentials lie, and must find each.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import tempfile
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from typer.testing import CliRunner

from console.children import Child, Children, free_port, python
from console.gateway.users import READER, WRITER, passwords
from console.main import app
from sinks.clickhouse import connect
from sinks.migrations import migrate
from steersman.events import Kind, Mode
from steersman.router import Router
from steersman.signing import generate_keys
from steersman.subscriber import PolicySubscriber
from steersman.topics import Topics
from steersman.tracer import Tracer
from tests.doors.served import post
from tests.faults.gateway import Gateway
from tests.page.served import ask
from tests.trust.part import Found, Say
from tests.trust.part_acl import EXPECTED, grant
from tests.trust.part_canaries import table_bytes, topic_bytes
from tests.trust.secured_kafka import SecuredKafka

LIVE = Topics("live")
POLICIES = """
[[policy]]
name = "p"
baseline = { model = "large" }
[policy.knobs]
model = ["small", "large"]
[policy.reward]
window_s = 600
settle_ms = 100
weights = { quality = 1.0 }
"""
_WAIT_S = 60.0
COMMANDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "operator": (
        ("config", "show"), ("config", "show", "--json"), ("doctor", "--json"), ("status", "--json"), ("acl", "list"), ("topics",),
        ("policy", "verify"), ("policy", "show", "p"), ("sql", "SELECT 1"), ("dlq", "list"),
    ),
    "stranger": (("doctor",), ("status",), ("policy", "verify")),
}  # fmt: skip
"""What is asked by whom; ``operator`` has everybody's credentials in the environment, as on a machine where all of it runs."""


@dataclass
class Planted:
    """Credentials by name, and where each lies.

    Attributes
    ----------
    secrets
        Name -> what must come out nowhere.
    places
        Files in which they lie, as is meant.
    """

    secrets: dict[str, str] = field(default_factory=dict)
    places: list[Path] = field(default_factory=list)

    def add(self, name: str, secret: str, place: Path | None = None) -> str:
        self.secrets[name] = secret
        if place is not None:
            self.places.append(place)
        return secret

    def pem(self, name: str, file: Path) -> None:
        """A private key: the middle line of it."""
        lines = [line for line in file.read_text().splitlines() if line and not line.startswith("-----")]
        self.add(name, lines[len(lines) // 2], file)

    def hits(self, places: Iterator[tuple[str, bytes]]) -> tuple[dict[str, set[str]], int]:
        """Name of a secret -> places where it was found; and how many bytes were searched."""
        forms = {name: _forms(secret) for name, secret in self.secrets.items()}
        found: dict[str, set[str]] = {}
        size = 0
        for place, content in places:
            size += len(content)
            for name, wanted in forms.items():
                if any(form in content for form in wanted):
                    found.setdefault(name, set()).add(place)
        return found, size


def _forms(secret: str) -> set[bytes]:
    """The secret as it is, in a URL, in hex, and in base64 wherever it begins."""
    raw = secret.encode()
    encoded = {base64.b64encode(b"\0" * n + raw)[4 if n else 0 : -4] for n in range(3)}
    return {raw, urllib.parse.quote(secret).encode(), raw.hex().encode(), *encoded}


class FullRun:
    """The deployment, its outputs, and what went wrong in it.

    Parameters
    ----------
    kafka
        With users of all roles; topics and rights are made.
    gateway
        The ClickHouse endpoint.
    folder
        For logs, and for what services are given.
    """

    def __init__(self, kafka: SecuredKafka, gateway: Gateway, folder: Path) -> None:
        self.kafka, self.gateway, self.folder = kafka, gateway, folder
        self.planted = Planted()
        self.outputs: list[tuple[str, bytes]] = []
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self._plant()

    def _plant(self) -> None:
        planted, kafka, given = self.planted, self.kafka, self.folder / "given"
        given.mkdir(parents=True)
        for role, file in kafka.passwords.items():
            planted.add(f"Kafka password of {role}", file.read_text(), file)
        for user in (WRITER, READER):
            planted.add(f"ClickHouse password of {user}", passwords(self.gateway.users)[user], self.gateway.users)

        def written(name: str, secret: str, text: str = "{}") -> Path:
            file = given / name.replace(" ", "-")
            file.touch(mode=0o600)
            file.write_text(text.format(planted.add(name, secret, file)))
            return file

        self._locked = kafka.authority.issue("learner", password=(word := "key-" + secrets.token_urlsafe(18)))
        planted.pem("client key of learner", self._locked.key)
        self._agent_env = kafka.env("agent", mtls=True)
        planted.pem("client key of the agent", Path(self._agent_env["STEERSMAN_KAFKA_KEY_FILE"]))
        self._key_password = written("password of that key", word)
        self._tokens = written("token of tenant acme", secrets.token_urlsafe(24), "acme {}\n")
        self._page_token = planted.add("page token", secrets.token_urlsafe(24))
        self._door_token = planted.add("door token", secrets.token_urlsafe(24))
        self._signing, self._public = given / "sign.key", given / "sign.pub"
        generate_keys(self._signing, self._public)
        planted.pem("policy signing key", self._signing)
        self._wrong = written("wrong Kafka password", secrets.token_urlsafe(18))
        self._wrong_store = planted.add("wrong ClickHouse password", secrets.token_urlsafe(18))
        self._wrong_tokens = written("token in a file that is none", secrets.token_urlsafe(24), "acme team {}\n")
        self._registry = planted.add("registry password", secrets.token_urlsafe(18))
        self._lonely = free_port()
        self._policies = given / "policies.toml"
        self._policies.write_text(POLICIES)

    @property
    def common(self) -> dict[str, str]:
        """Environment of every service."""
        return {
            "STEERSMAN_TOPIC_PREFIX": LIVE.prefix,
            "STEERSMAN_POLICIES": str(self._policies),
            "STEERSMAN_OTLP_TOPIC": f"{LIVE.prefix}-otlp",
            "STEERSMAN_CHECKPOINT_INTERVAL_S": "0.5",
            "STEERSMAN_SESSION_TIMEOUT_S": "6",
            "STEERSMAN_POLICY_KEYS": str(self._public),
        }

    def go(self, say: Say) -> None:
        """Run it all; what comes out is in `outputs`."""
        with contextlib.closing(connect(f"{self.gateway.url}/live", create_database=True)) as client:
            migrate(client)
        store = {"STEERSMAN_CLICKHOUSE_URL": f"{self.gateway.url}/live"}
        learner = {
            "STEERSMAN_BROKERS": self.kafka.mtls,
            "STEERSMAN_KAFKA_CA_FILE": str(self.kafka.authority.ca),
            "STEERSMAN_KAFKA_CERT_FILE": str(self._locked.cert),
            "STEERSMAN_KAFKA_KEY_FILE": str(self._locked.key),
            "STEERSMAN_KAFKA_KEY_PASSWORD_FILE": str(self._key_password),
            "STEERSMAN_POLICY_SIGNING_KEY": str(self._signing),
        }
        door = {
            **self.kafka.env("door"),
            "STEERSMAN_DOORS_TOKEN": self._door_token,
            "STEERSMAN_DOORS_TOKENS_FILE": str(self._tokens),
        }
        page = {
            **self.kafka.env("page"),
            "STEERSMAN_PAGE_TOKEN": self._page_token,
            "STEERSMAN_CLICKHOUSE_URL": f"{self.gateway.reading}/live",
        }
        ports = {name: free_port() for name in ("doors", "page", "processor", "learner", "sink", "doors monitor")}

        def monitored(name: str) -> dict[str, str]:
            return {"STEERSMAN_METRICS_PORT": str(ports[name])}

        with Children(self.folder / "logs") as children:

            def start(name: str, *command: str, **env: str) -> Child:
                return children.start(name, python(*command), {**self.common, **env})

            verbose = ("streams", "worker", "--verbose", "--stages")
            running = [
                start("processor", *verbose, "trace", **self.kafka.env("processor"), **monitored("processor")),
                start("learner", *verbose, "learn", **learner, **monitored("learner")),
                start("sink", "sinks", "run", **self.kafka.env("sink"), **store, **monitored("sink")),
                start("doors", "doors", "--port", str(ports["doors"]), **door, **monitored("doors monitor")),
                start("page", "page", "--port", str(ports["page"]), **page),
            ]
            failing = self._failing(start, store)
            say("credentials: the fleet works")
            self._agent(running)
            self._ask(ports)
            say("credentials: commands are asked")
            self._commands({**store, **learner, **page, **door})
            self._wait(lambda: self._stored("v_events") >= 81 and self._stored("v_rewards") >= 20, "rows in the store")
            if dead := self._stored("v_dead_letters"):
                self.problems.append(f"{dead} dead letters")
            for child in (*running, *failing, self.gateway.child):
                with contextlib.suppress(OSError):
                    self.outputs.append(
                        (f"command line of {child.name}", Path(f"/proc/{child.pid}/cmdline").read_bytes())
                    )
            for child in failing:
                child.stop()
            codes = {child.name: child.stop() for child in running}
            self.problems += [f"{name} ended with exit code {code}" for name, code in codes.items() if code]
        for log in sorted((self.folder / "logs").glob("*.log")):
            text = log.read_bytes()
            self.outputs.append((f"log of {log.stem}", text))
            if b"AUTHORIZATION_FAILED" in text.upper():
                self.problems.append(f"{log.stem} lacks a right in Kafka")
            if not text:
                self.problems.append(f"{log.stem} has no log")
        self.outputs.append(("log of the endpoint", self.gateway.child.log.read_bytes()))

    def _failing(self, start: Callable[..., Child], store: Mapping[str, str]) -> list[Child]:
        """Services whose credentials are not good, or not to be read."""
        wrong = {**self.kafka.env("sink"), "STEERSMAN_KAFKA_PASSWORD_FILE": str(self._wrong)}
        bad = f"http://{WRITER}:{self._wrong_store}@127.0.0.1:{self.gateway.port}/live"
        registry = f"http://me:{self._registry}@127.0.0.1:9"
        both = {"STEERSMAN_KAFKA_PASSWORD": self._wrong.read_text()}
        return [
            start("sink with a wrong Kafka password", "sinks", "run", **wrong, **store),
            start("sink with a wrong ClickHouse password", "sinks", "run", **self.kafka.env("sink"), STEERSMAN_CLICKHOUSE_URL=bad),
            start("sink with an address that is none", "sinks", "run", **self.kafka.env("sink"), STEERSMAN_CLICKHOUSE_URL=bad.replace("@", "@[")),
            start("sink with two passwords", "sinks", "run", **wrong, **both, **store),
            start("doors with a bad tokens file", "doors", **self.kafka.env("door"), STEERSMAN_DOORS_TOKENS_FILE=str(self._wrong_tokens)),
            start("doors with a short token", "doors", **self.kafka.env("door"), STEERSMAN_DOORS_TOKEN=self._wrong_store[:15]),
            start("doors without their registry", "doors", "--port", str(self._lonely), **self.kafka.env("door"), STEERSMAN_REGISTRY_URL=registry),
            start("worker with another's key", "streams", "worker", **self.kafka.env("worker"), STEERSMAN_POLICY_SIGNING_KEY=str(self._locked.key)),
        ]  # fmt: skip

    def _agent(self, running: list[Child]) -> None:
        with (
            _environment({**self.common, **self._agent_env}),
            Tracer("support", topics=LIVE) as tracer,
            PolicySubscriber(topics=LIVE) as subscriber,
        ):
            router = Router(subscriber, tracer, baselines={"p": {"model": "large"}})
            self._wait(lambda: subscriber.get("p") is not None, "the first policy", running[1])
            for _ in range(20):
                with tracer.span(Kind.AGENT):
                    decision = router.choose("p", {})
                if decision.mode != Mode.LIVE:
                    self.problems.append(f"a decision of mode {decision.mode}")
                tracer.feedback(decision, value=1.0)
            if left := tracer.flush(20):
                self.problems.append(f"{left} events were not delivered")
            learned = lambda: (held := subscriber.get("p")) is not None and held.snapshot.version >= 20  # noqa: E731
            self._wait(learned, "what was learned", running[0])
            self.outputs.append(("stats", repr((tracer.stats(), subscriber.stats())).encode()))

    def _ask(self, ports: Mapping[str, int]) -> None:
        """Ask every service, with its own credentials and with everybody else's."""
        doors, page = (f"http://127.0.0.1:{ports[name]}" for name in ("doors", "page"))
        self._wait(lambda: _status(doors) > 0 and _status(page) > 0, "doors and page")
        body = json.dumps({"trace_id": "ab" * 16, "value": 1.0}).encode()
        form = {"Origin": page, "Content_Type": "application/x-www-form-urlencoded"}
        for name, secret in self.planted.secrets.items():
            status, _, said = post(
                doors, "/v1/feedback", body, Content_Type="application/json", Authorization=f"Bearer {secret}"
            )
            self.outputs.append((f"answer of the doors to the {name}", str(said).encode()))
            self.counts["doors opened"] += status in (200, 202)
            if self.counts["pages asked"] < 6:  # of ten attempts in a row
                self.counts["pages asked"] += 1
                asked = f"token={urllib.parse.quote(secret)}"
                self.outputs.append(
                    (f"answer of the page to the {name}", repr(ask(page, "/login", "POST", asked, **form)).encode())
                )
            known = {"X_ClickHouse_User": WRITER, "X_ClickHouse_Key": secret}
            url = f"http://127.0.0.1:{self.gateway.port}"
            self.outputs.append(
                (
                    f"answer of the endpoint to the {name}",
                    repr(ask(url, "/", "POST", "SELECT nothing", **known)).encode(),
                )
            )
        if self.counts["doors opened"] != 2:
            self.problems.append(
                f"{self.counts['doors opened']} credentials opened the doors, those of two tenants should"
            )
        lonely = f"http://127.0.0.1:{self._lonely}"
        self._wait(lambda: _status(lonely) > 0, "doors without a registry")
        answer = post(lonely, "/v1/feedback", body, Content_Type="application/json")
        self.outputs.append(("answer of doors without a registry", repr(answer).encode()))
        status, headers, _ = ask(page, "/login", "POST", f"token={self._page_token}", **form)
        cookie = headers.get("Set-Cookie", "").partition(";")[0]
        if status != 303 or not cookie:
            self.problems.append(f"the page's token did not open it: {status}")
        for path in ("/", "/policy/p", f"/trace/{'ab' * 16}", "/livez", "/readyz"):
            self.outputs.append((f"page {path}", repr(ask(page, path, Cookie=cookie)).encode()))
        for name in ("processor", "learner", "sink", "doors monitor"):
            for path in ("/metrics", "/readyz", "/livez", "/version"):
                self.outputs.append(
                    (f"{path} of the {name}", repr(ask(f"http://127.0.0.1:{ports[name]}", path)).encode())
                )

    def _commands(self, everything: Mapping[str, str]) -> None:
        for role, commands in COMMANDS.items():
            more = everything if role == "operator" else {}
            env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("STEERSMAN_")}
            env |= {**self.common, **more, **self.kafka.env(role), "STEERSMAN_HOME": str(self.folder / "home")}
            for name in ("CERT_FILE", "KEY_FILE", "KEY_PASSWORD_FILE") if role == "operator" else ():
                env.pop(f"STEERSMAN_KAFKA_{name}", None)
            env["STEERSMAN_REGISTRY_URL"] = f"http://me:{self._registry}@127.0.0.1:9" if role == "stranger" else ""
            for command in commands:
                done = CliRunner().invoke(app, list(command), env=env)
                said = f"{done.output}\n{done.exception!r}\n{done.exception}"
                self.outputs.append((f"steersman {' '.join(command)} as {role}", said.encode()))
                self.counts["commands"] += 1

    def _stored(self, table: str) -> int:
        with contextlib.closing(connect(f"{self.gateway.url}/live")) as client:
            return int(client.query(f"SELECT count() FROM {table}").result_rows[0][0])

    def _wait(self, ready: Callable[[], bool], what: str, child: Child | None = None) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not ready():
            if time.monotonic() > deadline or (child is not None and child.exit_code is not None):
                raise AssertionError(f"{what} did not come: {child.tail(40) if child else ''}")
            time.sleep(0.05)


def search(run: FullRun) -> Found:
    """Search what came out of a full run, and where the credentials lie."""
    records, rows = Counter[str](), Counter[str]()

    def everywhere() -> Iterator[tuple[str, bytes]]:
        yield from run.outputs
        yield from topic_bytes(run.kafka.plain, records)
        yield from table_bytes(f"{run.gateway.url}/live", rows)

    found, size = run.planted.hits(everywhere())
    problems = [*run.problems, *(f"{name} is in {', '.join(sorted(where))}" for name, where in sorted(found.items()))]
    in_files, _ = run.planted.hits((str(place), place.read_bytes()) for place in run.planted.places)
    given = run.planted.secrets.keys() - {"page token", "door token", "wrong ClickHouse password", "registry password"}
    problems += [f"the control does not find the {name} where it lies" for name in sorted(given - in_files.keys())]
    totals = {"credentials": len(run.planted.secrets), "credentials_found": len(found)}
    detail = {
        "searched_bytes": size,
        "outputs": len(run.outputs),
        "commands": run.counts["commands"],
        "records": sum(records.values()),
        "rows": sum(rows.values()),
    }
    return Found(totals, problems, detail)


def run(quick: bool, seed: int, say: Say) -> Found:
    """Plant, run, search; size and seed change nothing."""
    with (
        tempfile.TemporaryDirectory(prefix="credentials-") as folder,
        SecuredKafka(Path(folder) / "kafka", list(EXPECTED)) as kafka,
        contextlib.ExitStack() as stack,
    ):
        grant(kafka, LIVE)
        gateway = Gateway(Path(folder) / "clickhouse")
        stack.callback(gateway.stop)
        full = FullRun(kafka, gateway, Path(folder) / "run")
        full.go(say)
        say("credentials: searching")
        return search(full)


def _status(url: str) -> int:
    try:
        return ask(url, "/")[0]
    except OSError:
        return 0


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {name: value for name, value in os.environ.items() if name.startswith("STEERSMAN_")}
    for name in before:
        del os.environ[name]
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted:
            os.environ.pop(name, None)
        os.environ.update(before)
