"""deploy/Dockerfile by BuildKit's own parser and linter: what `docker build` would refuse or warn of before it starts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def check(tools: Path, file: Path) -> tuple[int, str]:
    done = subprocess.run([tools / "dockerfile-check", file], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_nothing_is_found(docker_tools: Path) -> None:
    assert check(docker_tools, DOCKERFILE) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("COPY bin /app/bin", "COPY --frm=build bin /app/bin", "unknown flag: --frm"),
        ("WORKDIR /var", "WRKDIR /var", "unknown instruction: WRKDIR"),
        ("-bookworm AS build", "-bookworm as build", "FromAsCasing"),
        ("-bookworm AS build", "-bookworm AS Build", "StageNameCasing"),
        ("USER 10001", "MAINTAINER us\nUSER 10001", "MaintainerDeprecated"),
        ("RUN useradd", "RUN true \\\n\n && useradd", "Empty continuation line"),
    ],
)
def test_what_is_planted_is_found(docker_tools: Path, tmp_path: Path, old: str, new: str, says: str) -> None:
    text = DOCKERFILE.read_text()
    assert text.count(old) == 1
    broken = tmp_path / "Dockerfile"
    broken.write_text(text.replace(old, new))
    code, said = check(docker_tools, broken)
    assert code == 1
    assert says in said
