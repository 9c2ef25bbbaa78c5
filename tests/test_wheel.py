"""What an agent service installs: the built wheel, in an environment with nothing else, outside the checkout."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from console.brokers import Broker

ROOT = Path(__file__).resolve().parent.parent


def run(*command: object, cwd: Path, timeout_s: float = 300) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "STEERSMAN_", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as a release builds it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of an environment that holds the wheel and what it depends on."""
    place = tmp_path_factory.mktemp("agent") / "venv"
    venv.create(place, with_pip=True)
    # The versions of this environment: they are in pip's cache already.
    here = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    pins = place / "pins.txt"
    pins.write_text("".join(f"{n}=={v}\n" for n, v in sorted(here.items()) if n.lower() != "steersman"))
    pip = [place / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--only-binary", ":all:", "--constraint", pins, wheel, cwd=place)
    run(*pip, "check", cwd=place)
    return place / "bin" / "python"


def test_the_wheel_holds_the_agent_package_and_the_contracts_and_nothing_else(wheel: Path) -> None:
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    code = {str(f.relative_to(ROOT)) for f in (ROOT / "steersman").rglob("*.py")}
    typed = {str(f.relative_to(ROOT)) for f in (ROOT / "steersman").rglob("py.typed")}
    contracts = {f"steersman/avsc/{f.relative_to(ROOT / 'schemas')}" for f in (ROOT / "schemas").rglob("*.avsc")}
    assert len(contracts) >= 10
    assert names == code | typed | contracts | {"steersman/prices.toml"}


def test_the_wheel_needs_four_packages(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = archive.read(name).decode().partition("\n\n")[0].splitlines()
    needs = [
        line.partition(": ")[2] for line in metadata if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert sorted(need.split(">")[0] for need in needs) == ["confluent-kafka", "fastavro", "numpy", "pydantic"]
    assert "License-Expression: Apache-2.0" in metadata
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in archive.namelist())


def test_every_contract_is_found_in_the_installed_package(python: Path, tmp_path: Path) -> None:
    code = (
        "from steersman import contracts; import json; "
        "print(json.dumps({n: [contracts.fingerprint(s).hex() for s in contracts.versions(n)] for n in contracts.NAMES}))"
    )
    from steersman import contracts

    assert json.loads(run(python, "-c", code, cwd=tmp_path)) == {
        n: [contracts.fingerprint(s).hex() for s in contracts.versions(n)] for n in contracts.NAMES
    }


def test_tracer_and_router_run_from_the_wheel_alone(python: Path, broker: Broker, tmp_path: Path) -> None:
    prefix = "wheel"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    made = admin.create_topics([NewTopic(f"{prefix}.{name}.v1", 1, 1) for name in ("trace", "policy")])
    for future in made.values():
        future.result(30)
    script = tmp_path / "agent.py"
    script.write_text((ROOT / "tests" / "wheel_agent.py").read_text())
    said = json.loads(run(python, "-W", "error", script, broker.bootstrap, prefix, cwd=tmp_path, timeout_s=150))
    assert Path(said["package"]).is_relative_to(python.parent.parent)
    assert said["platform"] == []
    assert said["ready"] is True
    assert (said["undelivered"], said["remaining"]) == (0, 0)
    assert said["decisions"] == [
        ["FALLBACK", "no_snapshot", {"top_k": 2}, 1.0, None],
        ["LIVE", None, {"top_k": 8}, 1.0, 42],
    ]
    assert said["kinds"] == sorted(["AGENT", "DECISION", "END", "FEEDBACK", "TOOL_CALL"] * 2)
    assert said["logged"] == ["FALLBACK", "LIVE"]
