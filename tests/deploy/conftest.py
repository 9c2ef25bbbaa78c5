"""Docker's own readers of our files, built from their Go modules: neither needs an engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MODULE = Path(__file__).parent / "docker"


@pytest.fixture(scope="session")
def docker_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `compose-config` and `dockerfile-check`; skips where Go is not installed, or its modules cannot be had."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed: the programs of tests/deploy/docker cannot be built")
    built = tmp_path_factory.mktemp("docker")
    env = {
        **os.environ,
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    made = subprocess.run(
        ["go", "build", "-o", f"{built}/", "./..."], cwd=MODULE, env=env, capture_output=True, text=True
    )
    if made.returncode and "dial tcp" in made.stderr and "CI" not in os.environ:
        pytest.skip("Go modules cannot be fetched")
    assert made.returncode == 0, made.stderr
    return built
