"""deploy/Dockerfile by hadolint: good practice of Dockerfiles, and ShellCheck for the commands in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
HADOLINT = Path(sys.executable).with_name("hadolint")


def lint(text: str) -> set[str]:
    """Codes of the rules that a Dockerfile breaks, of any severity; none may be ignored in the file itself."""
    command = [HADOLINT, "--no-color", "--format", "json", "--disable-ignore-pragma", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.stderr == ""
    return {one["code"] for one in json.loads(done.stdout)}


def test_nothing_is_found() -> None:
    assert lint(DOCKERFILE) == set()


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("FROM python:3.11.14-slim-bookworm\n", "FROM python:latest\n", "DL3007"),
        ("USER 10001\n", "USER root\n", "DL3002"),
        ("WORKDIR /var/lib/steersman", "WORKDIR var", "DL3000"),
        ("RUN python -m venv /opt/venv", "RUN cd $HOME && python -m venv /opt/venv", "SC2086"),
        ('CMD ["python", "-m", "console", "--help"]', "CMD python -m console", "DL3025"),
    ],
)
def test_what_is_planted_is_found(old: str, new: str, code: str) -> None:
    assert DOCKERFILE.count(old) == 1
    assert code in lint(DOCKERFILE.replace(old, new))
