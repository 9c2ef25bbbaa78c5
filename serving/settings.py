"""Where the settings of services come from: command line over environment (``STEERSMAN_*``) over a TOML file over defaults.

``STEERSMAN_CONFIG`` names the file. It is flat (``brokers = "k1:9092"``), and one file serves all services: each takes the
keys it knows. `steersman config show` and `steersman doctor` name the keys that none knows.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from steersman.errors import ConfigError

FILE_VARIABLE = "STEERSMAN_CONFIG"


def settings_file() -> dict[str, Any]:
    """Read the settings file; empty when none is named.

    Raises
    ------
    ConfigError
        It cannot be read or is not TOML.
    """
    name = os.environ.get(FILE_VARIABLE)
    if not name:
        return {}
    try:
        return tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read ({error.strerror}); it is named by {FILE_VARIABLE}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f'{name}: is not TOML ({error}); write lines like: brokers = "127.0.0.1:9092"') from error


class ServiceSettings(BaseSettings):
    """Base of the settings of a service."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the file behind the environment."""
        known = {key: value for key, value in settings_file().items() if key in settings_cls.model_fields}
        return init_settings, env_settings, InitSettingsSource(settings_cls, known)


Settings = TypeVar("Settings", bound=ServiceSettings)


def read_settings(kind: type[Settings], given: Mapping[str, object], *, show_input: bool = False) -> Settings:
    """Read the settings of a service; what is given (and not None) wins over environment and file.

    Parameters
    ----------
    kind
        Of which service.
    given
        By name, what the command line said.
    show_input
        Whether a message quotes what cannot be used; not where settings hold secrets.

    Raises
    ------
    ConfigError
        Names every variable that cannot be used.
    """
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = "; ".join(
            f"STEERSMAN_{'_'.join(map(str, p['loc'])).upper()}: {p['msg']}"
            + (f" (it is {p['input']!r})" if show_input else "")
            for p in error.errors(include_input=show_input, include_url=False)
        )
        raise ConfigError(wrong) from error
