"""docker-compose.yml without Docker: valid by the specification, kept to our rules, and its commands really run.

What needs an engine stays unproved here: the image's build, the health of the three foreign images, networks, limits.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from console.brokers import Broker
from console.children import free_port, listening
from serving.private_file import write_private
from steersman.kafka_security import kafka_security
from steersman.topics import Topics
from streams.access import roles
from tests.certificates import Authority
from tests.doors.served import post
from tests.steersman.test_registry import Server

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if "build" in service}
ONE_SHOT = {"init", "console", "fleet"}
NAME = r"[A-Z][A-Z0-9_]*"


def fill(value: Any, variables: Mapping[str, str]) -> Any:
    """Interpolate as Compose does: ``${A:?message}``, ``${A:-default}``, ``${A:+instead}``, ``$$``."""
    if isinstance(value, dict):
        return {key: fill(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def one(found: re.Match[str]) -> str:
        name, sign, rest = found["name"], found["sign"], found["rest"]
        if variables.get(name):
            return rest if sign == ":+" else variables[name]
        if sign in (":-", ":+"):
            return rest if sign == ":-" else ""
        raise KeyError(f"{name}: {rest}")

    return re.sub(rf"\$\{{(?P<name>{NAME})(?P<sign>:[-?+])(?P<rest>[^}}]*)\}}", one, value).replace("$$", "$")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What deploy/make_env.py writes."""
    file = tmp_path_factory.mktemp("env") / ".env"
    command = [sys.executable, "deploy/make_env.py", str(file)]
    file.write_text("KAFKA_CLUSTER_ID=" + "k" * 22)  # of an earlier version: what it lacks is added
    file.chmod(0o600)
    assert "wrote" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    before = file.read_text()
    assert before.startswith("KAFKA_CLUSTER_ID=" + "k" * 22 + "\n")
    file.unlink()
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    before = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "was left as it is" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert file.read_text() == before
    return dict(line.split("=", 1) for line in before.splitlines())


def test_valid_by_the_compose_specification() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    jsonschema.validate(COMPOSE, schema)
    broken = {**COMPOSE, "services": {"x": {"imagee": "y"}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_the_services_of_the_platform_are_there() -> None:
    ours = {"init", "workers", "sink", "doors", "page", "console", "fleet"}
    assert set(SERVICES) == {"kafka", "clickhouse", "registry", "prometheus", "grafana"} | ours
    assert ours == OURS
    assert all(SERVICES[name]["profiles"] == ["observability"] for name in ("prometheus", "grafana"))
    assert SERVICES["fleet"]["profiles"] == ["demo"]
    assert SERVICES["console"]["profiles"] == ["tools"]
    core = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert core == {"kafka", "clickhouse", "registry", "init", "workers", "sink", "doors", "page"}
    for name, service in SERVICES.items():
        for other in service.get("depends_on", {}):
            # A service whose profile is off cannot be waited for.
            assert other in core or SERVICES[other]["profiles"] == service["profiles"], f"{name} -> {other}"


def test_images_are_pinned() -> None:
    for name, service in SERVICES.items():
        tag = service["image"].partition(":")[2]
        assert re.fullmatch(r"v?\d+(\.\d+)+", tag), f"{name}: {service['image']}"
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.M)
    assert len(bases) == 2
    assert all(re.search(r":\d+\.\d+\.\d+-", base) for base in bases)
    [uid] = re.findall(r"^USER (\d+)$", dockerfile, re.M)
    assert int(uid) > 0
    assert f"useradd --uid {uid} " in dockerfile


def test_ports_are_on_the_loopback_interface() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 7
    assert all(isinstance(port, str) and port.startswith("127.0.0.1:") for port in ports)
    assert not any("network_mode" in service or "privileged" in service for service in SERVICES.values())


def test_no_secret_is_written_down_and_none_has_a_default(secrets: dict[str, str]) -> None:
    for name, value in ((k, v) for s in SERVICES.values() for k, v in s.get("environment", {}).items()):
        if re.search("PASSWORD|SECRET|TOKEN", name) and not name.endswith("_FILE"):
            assert re.fullmatch(rf"\$\{{{NAME}:\?[^}}]+\}}", value), name
        for credentials in re.findall(r"://([^@/]+)@", str(value)):
            assert re.fullmatch(rf"(steersman|grafana_ro):\$\{{{NAME}:\?[^}}]+\}}", credentials), name
    wanted = set(re.findall(rf"\$\{{({NAME}):\?", TEXT))
    assert wanted == set(secrets)
    for name in wanted:
        with pytest.raises(KeyError, match=r"deploy/make_env\.py"):
            fill(COMPOSE, {k: v for k, v in secrets.items() if k != name})
    assert "${" not in json.dumps(fill(COMPOSE, secrets))
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    assert all(len(secrets[name]) >= 32 for name in secrets if name != "KAFKA_CLUSTER_ID")
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", secrets["KAFKA_CLUSTER_ID"])
    assert "CLICKHOUSE" not in json.dumps([SERVICES[n]["environment"] for n in ("workers", "doors", "fleet")])


def test_every_service_comes_to_kafka_as_a_principal_of_its_own(secrets: dict[str, str], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    table = roles(Topics())
    here = {"/run/kafka/": f"{tmp_path}/"}
    brokers = {"KAFKA_BROKERS": "k1:9093", "KAFKA_CA_FILE": "/run/kafka/ca.pem"}
    expected = dict(zip(OURS, OURS, strict=True)) | {
        "init": "operator", "console": "operator", "workers": "worker", "doors": "door", "fleet": "agent",
    }  # fmt: skip
    for name, role in expected.items():
        assert role in table
        authority.issue(role)
        (tmp_path / f"{role}.password").write_text("secret")
        for sign, protocol in (("KAFKA_SASL", "SASL_SSL"), ("KAFKA_MTLS", "SSL"), ("NEITHER", "PLAINTEXT")):
            told = brokers if sign != "NEITHER" else {}
            env = Platform({**secrets, **told, sign: "1"}, here, tmp_path).env(name)
            given = {key.removeprefix("STEERSMAN_").lower(): v for key, v in env.items() if "_KAFKA_" in key}
            security = kafka_security(env["STEERSMAN_BROKERS"], given)
            assert security.protocol == protocol
            assert security.username == (role if sign == "KAFKA_SASL" else "")
            assert security.cert_file == (str(tmp_path / f"{role}.crt") if sign == "KAFKA_MTLS" else "")
    assert (ROOT / "deploy/kafka/secrets/.gitignore").read_text().split("\n")[1:3] == ["*", "!.gitignore"]


def test_every_service_is_watched_limited_and_stops_in_order() -> None:
    for name, service in SERVICES.items():
        assert ("healthcheck" in service) == (name not in ONE_SHOT), name
        assert service["mem_limit"], name
        assert service["pids_limit"] >= 512, name
        assert int(service["stop_grace_period"].removesuffix("s")) >= 30, name
        assert service["logging"]["options"]["max-size"], name
        assert service["restart"] == {"init": "on-failure:5"}.get(name, "no" if name in ONE_SHOT else "unless-stopped")
        for other, wait in service.get("depends_on", {}).items():
            done = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert wait["condition"] == done, f"{name} -> {other}"
    for mount in (m for s in SERVICES.values() for m in s.get("volumes", [])):
        source, _, rest = mount.partition(":")
        shipped = source.startswith("./deploy/") and rest.endswith(":ro") and (ROOT / source).exists()
        assert shipped or source in COMPOSE["volumes"], "named volumes, and our own files read-only"


def test_the_image_holds_what_the_commands_import_and_no_more() -> None:
    copied = set(re.findall(r"^COPY (\w+)(?:\.toml)? /app/", (ROOT / "deploy" / "Dockerfile").read_text(), re.M))
    assert copied == {
        "bin", "schemas", "steersman", "learners", "columns", "serving", "streams", "sinks", "doors", "page", "console", "examples",
        "policies",
    }  # fmt: skip
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[ignored.index("*") :][0] == "*"
    for part in copied - {"policies"}:
        assert f"!{part}" in ignored


class Platform:
    """The commands of our services, run by hand with the environment of the file and local addresses."""

    def __init__(self, variables: Mapping[str, str], hosts: Mapping[str, str], place: Path) -> None:
        self.services = fill(SERVICES, variables)
        self.hosts = {"/app/": f"{ROOT}/", **hosts}
        self.place = place
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def env(self, name: str) -> dict[str, str]:
        declared = {k: self.local(str(v)) for k, v in self.services[name]["environment"].items()}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.place), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **declared}

    def local(self, text: str) -> str:
        for there, here in self.hosts.items():
            text = text.replace(there, here)
        return text

    def command(self, name: str) -> list[str]:
        service = self.services[name]
        return [*service.get("entrypoint", []), *service["command"]]

    def run(self, name: str, command: list[str] | None = None, timeout_s: float = 120) -> tuple[int, str]:
        done = subprocess.run(
            command or self.command(name),
            cwd=self.place,
            env=self.env(name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )
        return done.returncode, done.stdout

    def start(self, name: str) -> None:
        with (self.place / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                self.command(name), cwd=self.place, env=self.env(name), stdout=log, stderr=subprocess.STDOUT
            )

    def healthy(self, name: str, timeout_s: float = 90) -> bool:
        """Run the service's own healthcheck until it passes."""
        kind, *probe = [self.local(part) for part in self.services[name]["healthcheck"]["test"]]
        assert kind == "CMD"
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.running[name].poll() is None:
            if self.run(name, probe)[0] == 0:
                return True
            time.sleep(0.2)
        return False

    def stop(self, name: str) -> int:
        child = self.running.pop(name)
        child.send_signal(signal.SIGTERM)
        try:
            return child.wait(int(self.services[name]["stop_grace_period"].removesuffix("s")))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise

    def log(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text()


@pytest.fixture(scope="module")
def platform(secrets: dict[str, str], broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    place = tmp_path_factory.mktemp("compose")
    store, users = free_port(), place / "users.toml"
    write_private(
        users,
        f'[steersman]\npassword = "{secrets["CLICKHOUSE_PASSWORD"]}"\naccess = "write"\n'
        f'[grafana_ro]\npassword = "{secrets["GRAFANA_RO_PASSWORD"]}"\n',
    )
    command = ["console.gateway", "--path", str(place / "chdb"), "--port", str(store), "--users", str(users)]
    gateway = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not listening(store) and time.monotonic() < deadline:
        time.sleep(0.05)
    registry = Server()
    thread = threading.Thread(target=registry.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hosts = {
        "kafka:19092": broker.bootstrap,
        "clickhouse:8123": f"127.0.0.1:{store}",
        "http://registry:8081": registry.url,
        **{port: str(free_port()) for port in ("9464", "9465", "9466", "4318", "8500")},
        # Nothing of a test is open to the network.
        "0.0.0.0": "127.0.0.1",
    }
    built = Platform({**secrets, "STEERSMAN_TOPIC_PREFIX": "compose"}, hosts, place)
    yield built
    for name in list(built.running):
        built.running[name].kill()
        built.running.pop(name).wait()
    gateway.terminate()
    gateway.wait(30)
    registry.shutdown()
    thread.join()
    registry.server_close()


def test_every_command_of_ours_runs(platform: Platform) -> None:
    """init, workers, sink, doors, fleet and console, in the order of their dependencies, up to rows in the store."""
    for _ in range(2):
        code, said = platform.run("init")
        assert code == 0, said
    for name in ("workers", "sink", "doors", "page"):
        platform.start(name)
    for name in ("workers", "sink", "doors", "page"):
        assert platform.healthy(name), platform.log(name)
    url, feedback = (
        f"http://127.0.0.1:{platform.local('4318')}",
        json.dumps({"trace_id": "ab" * 16, "value": 1}).encode(),
    )
    token = platform.env("doors")["STEERSMAN_DOORS_TOKEN"]
    for header, status in ((f"Bearer {token}", 200), ("", 401)):
        assert post(url, "/v1/feedback", feedback, Content_Type="application/json", Authorization=header)[0] == status
    fleet = platform.command("fleet")
    fleet[fleet.index("--seconds") + 1], fleet[fleet.index("--rate") + 1] = "6", "10"
    code, said = platform.run("fleet", fleet)
    assert code == 0, said

    def console(*words: str) -> list[dict[str, Any]]:
        code, said = platform.run("console", [*platform.command("console")[:-1], *words, "--json"])
        assert code == 0, said
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    # Agents followed the policies that workers wrote by the ids of the registry, and so does the console.
    query = "SELECT count() AS n FROM v_decisions WHERE mode = 'LIVE'"
    deadline, rows = time.monotonic() + 60, 0
    while rows < 20 and time.monotonic() < deadline:
        [[rows]] = [row.values() for row in console("sql", query)]
    assert rows >= 20, platform.log("sink")
    code, said = platform.run("console")
    assert code == 0, said
    assert {"research/retrieval", "research/synthesis"} <= {row["policy"] for row in console("policy", "list")}
    [act] = console("policy", "freeze", "research/retrieval", "--why", "an act over the registry")
    assert (act["outcome"], act["standing"]) == ("APPLIED", "frozen")
    console("policy", "keygen", "--out", str(platform.place))
    checked = [
        *platform.command("console")[:-1],
        "policy",
        "verify",
        "--key",
        str(platform.place / "policy.pub"),
        "--json",
    ]
    code, said = platform.run("console", checked)
    assert code == 4, said
    read = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert {(row["signature"], row["version"] >= 0) for row in read} == {("unsigned", True)}

    for name in ("page", "doors", "workers", "sink"):
        assert platform.stop(name) == 0, platform.log(name)
        assert token not in platform.log(name), "the token is in the log"
        assert platform.services["sink"]["environment"]["STEERSMAN_CLICKHOUSE_URL"].split(":")[2].split("@")[0] not in (
            platform.log(name)
        ), "the password is in the log"


OPTIONS = {
    "up": {"-d", "--wait", "--no-deps", "--no-recreate", "--scale="},
    "run": {"--rm"},
    "build": set(),
    "stop": set(),
    "config": {"--resolve-image-digests"},
}
"""Subcommands of `docker compose` and their options, one of Compose's command lines each; with ``=`` where a value follows."""


def compose_commands() -> list[list[str]]:
    """Command lines of README, the pages and the file's own head."""
    texts = [
        path.read_text() for path in (ROOT / "README.md", ROOT / "docker-compose.yml", *(ROOT / "docs").glob("*.md"))
    ]
    found = [line for text in texts for line in re.findall(r"docker compose ([^`#|)\n]*)", text)]
    return [shlex.split(re.split(r"\s{3,}| writes |: | of the |, ", line)[0]) for line in found]


def test_commands_of_pages_name_services_and_profiles_of_the_file() -> None:
    commands = compose_commands()
    assert len(commands) > 12
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}
    for words in commands:
        left = list(words)
        while left and left[0] == "--profile":
            assert left[1] in profiles, words
            left = left[2:]
        assert left[0] in OPTIONS, words
        known, named, rest = OPTIONS[left[0]], [], left[1:]
        while rest:
            word = rest.pop(0)
            if word.startswith("-"):
                assert word in known or f"{word}=" in known, words
                named += [rest.pop(0).partition("=")[0]] if f"{word}=" in known else []
                continue
            named.append(word)
            if left[0] == "run":
                break  # what follows is the container's own command line
        assert set(named) <= set(SERVICES), words
