"""The peers' own environment: `make bench` creates it from `benchmarks/peers/requirements.txt`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from steersman.errors import ConfigError

_HERE = Path(__file__).parent
_PYTHON = _HERE / ".venv-peers" / "bin" / "python"
_LOCK = _HERE / "peers" / "requirements.txt"


def peer(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with the peers' interpreter.

    Raises
    ------
    ConfigError
        When the environment is not there.
    """
    if not _PYTHON.exists():
        raise ConfigError("the peers are not installed: run 'make bench-peers'")
    return [str(_PYTHON), "-m", module, *arguments]


def versions(packages: Iterable[str] = ("faust-streaming", "quixstreams", "bytewax")) -> dict[str, str]:
    """Return the versions that the lock pins, as ``peers: <package>``."""
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", _LOCK.read_text(), re.MULTILINE))
    return {f"peers: {package}": pinned[package] for package in packages}
