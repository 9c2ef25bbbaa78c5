"""docker-compose.yml as Docker Compose itself reads it: by compose-go, the library behind `docker compose config`, which needs no engine.

What `test_compose.py` executes is read from the file by a reader of ours; here is the proof that Compose reads the same.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.test_compose import NAME, ROOT, SERVICES, TEXT, fill

PROFILES = sorted({profile for service in SERVICES.values() for profile in service.get("profiles", [])})
SECRETS = {name: name.lower() * 4 for name in re.findall(rf"\$\{{({NAME}):\?", TEXT)}

Config = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def config(docker_tools: Path) -> Config:
    """Run `docker compose config` with variables and profiles."""

    def run(
        variables: dict[str, str], *profiles: str, file: Path = ROOT / "docker-compose.yml"
    ) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "HOME": str(file.parent), **variables}
        command = [str(docker_tools / "compose-config"), str(file), *profiles]
        return subprocess.run(command, cwd=file.parent, env=env, capture_output=True, text=True)

    return run


@pytest.mark.parametrize(
    "brokers",
    [
        {},
        {"KAFKA_BROKERS": "k1:9093", "KAFKA_CA_FILE": "/run/kafka/ca.pem", "KAFKA_SASL": "1"},
        {"KAFKA_BROKERS": "k1:9093", "KAFKA_CA_FILE": "/run/kafka/ca.pem", "KAFKA_MTLS": "1"},
    ],
    ids=["plain", "SASL", "mTLS"],
)
def test_compose_reads_what_the_tests_execute(config: Config, brokers: dict[str, str]) -> None:
    variables = {**SECRETS, **brokers}
    done = config(variables, *PROFILES)
    assert (done.returncode, done.stderr) == (0, "")
    read: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    ours: dict[str, dict[str, Any]] = fill(SERVICES, variables)
    assert read.keys() == ours.keys()
    for name, service in ours.items():
        seen = read[name]
        for key in ("environment", "command", "entrypoint", "image", "restart", "profiles", "init", "cap_drop"):
            assert (seen.get(key) or None) == (service.get(key) or None), f"{name}.{key}"
        assert (seen.get("healthcheck") or {}).get("test") == (service.get("healthcheck") or {}).get("test")
        waits = {other: wait["condition"] for other, wait in (seen.get("depends_on") or {}).items()}
        assert waits == {other: wait["condition"] for other, wait in service.get("depends_on", {}).items()}
        assert all(port["host_ip"] == "127.0.0.1" for port in seen.get("ports", [])), name
        assert len(seen.get("ports", [])) == len(service.get("ports", []))
        for mount in seen.get("volumes", []):
            shipped = mount["type"] == "bind" and mount["read_only"] and Path(mount["source"]).is_relative_to(ROOT)
            assert shipped or mount["type"] == "volume", name


def test_profiles_switch_services_on(config: Config) -> None:
    core = {name for name, service in SERVICES.items() if "profiles" not in service}
    for profile in (None, *PROFILES):
        done = config(SECRETS, *([profile] if profile else []))
        wanted = core | {name for name, service in SERVICES.items() if profile in service.get("profiles", [])}
        assert json.loads(done.stdout)["services"].keys() == wanted, profile


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_compose_refuses_a_missing_secret(config: Config, missing: str) -> None:
    done = config({name: value for name, value in SECRETS.items() if name != missing}, *PROFILES)
    assert done.returncode == 1
    assert f"{missing} is missing a value: run python deploy/make_env.py first" in done.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("    image: apache/kafka:", "    imagee: apache/kafka:"), "imagee"),
        (("      registry: {condition: service_healthy}\n", "      nobody: {condition: service_healthy}\n"), "nobody"),
        (("    depends_on:\n      kafka: {condition: service_healthy}\n    healthcheck", "    depends_on:\n      init: {condition: service_healthy}\n    healthcheck"), "cycle"),
    ],
    ids=["key", "service", "cycle"],
)  # fmt: skip
def test_compose_refuses_what_is_wrong(config: Config, tmp_path: Path, change: tuple[str, str], says: str) -> None:
    assert change[0] in TEXT
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(TEXT.replace(*change))
    done = config(SECRETS, *PROFILES, file=broken)
    assert done.returncode == 1
    assert says in done.stderr
