"""The settings file that ``STEERSMAN_CONFIG`` names: flat TOML (``brokers = "k1:9092"``), one for all services."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from steersman.errors import ConfigError

FILE_VARIABLE = "STEERSMAN_CONFIG"


def settings_file() -> dict[str, Any]:
    """Read the settings file; empty when none is named.

    Raises
    ------
    ConfigError
        It cannot be read or is not TOML.
    """
    return tomllib.loads(settings_text())


def settings_text() -> str:
    """Return the text of the settings file, which is TOML; empty when none is named. Raises as `settings_file` does."""
    name = os.environ.get(FILE_VARIABLE)
    if not name:
        return ""
    try:
        text = Path(name).read_text(encoding="utf-8")
        tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read ({error.strerror}); it is named by {FILE_VARIABLE}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f'{name}: is not TOML ({error}); write lines like: brokers = "127.0.0.1:9092"') from error
    return text
