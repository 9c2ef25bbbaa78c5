"""Where the settings of services come from: command line over environment (``STEERSMAN_*``) over a TOML file over defaults.

``STEERSMAN_CONFIG`` names the file. It is flat (``brokers = "k1:9092"``), and one file serves all services: each takes the
keys it knows. What no service knows is refused when a service starts, so a misspelt setting is never silently the default:

- a key of the file: always, with its file and line;
- a variable ``STEERSMAN_*``: with the known name that is closest, unless ``STEERSMAN_UNKNOWN_SETTINGS=warn`` says to go on
  (so that a release may be started with the environment of the next one). The variables that Kubernetes makes of a Service
  named ``steersman-*`` (``STEERSMAN_SINK_SERVICE_HOST``, ``STEERSMAN_SINK_PORT_9465_TCP``) are nobody's misspelling.

A new setting is a field of its service's class. A service is one entry of `SERVICES`, a variable that is no field one of
`VARIABLES`. Agents (`steersman.Tracer`, `Router`) read a few of the variables and refuse nothing: they never fail because of us.
"""

from __future__ import annotations

import difflib
import logging
import os
import pkgutil
import re
from collections.abc import Mapping
from typing import Any, Final, Self

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from serving.addresses import without_passwords
from steersman.errors import ConfigError
from steersman.fault_points import VARIABLE as FAULT_POINT
from steersman.settings_file import FILE_VARIABLE, settings_file, settings_text
from steersman.signing import KEYS_VARIABLE, MODE_VARIABLE

PREFIX: Final = "STEERSMAN_"
UNKNOWN_VARIABLE: Final = "STEERSMAN_UNKNOWN_SETTINGS"

SERVICES: Final[Mapping[str, str]] = {
    "worker": "streams.settings:StreamSettings",
    "sink": "sinks.settings:SinkSettings",
    "doors": "doors.settings:DoorSettings",
    "page": "page.settings:PageSettings",
    "kafka": "serving.kafka:KafkaSettings",
}
"""Service -> where the class of its settings is. By name: each service has to know what the others are told, and imports none."""

VARIABLES: Final[Mapping[str, str]] = {
    FILE_VARIABLE: "the TOML file of settings, for all services",
    UNKNOWN_VARIABLE: "what becomes of variables that nothing knows: refuse (the default) or warn",
    KEYS_VARIABLE: "files of the public keys that agents and learners trust, comma-separated",
    MODE_VARIABLE: "whether agents insist on signed policies",
    FAULT_POINT: "where a process dies, for tests",
    "STEERSMAN_HOME": "folder of the local stack",
    "STEERSMAN_TRAINING_BUDGET_S": "longest training of an encoder; unit: seconds",
    "STEERSMAN_DEVICE": "cpu to train encoders on no GPU",
    "STEERSMAN_DATA": "folder of routing data, for benchmarks",
    "STEERSMAN_SCHEDULES": "how many schedules the simulation plays, for tests",
}
"""Variables that are no setting of a service, and what they say."""

_SERVICE_LINK = re.compile(
    r"STEERSMAN_\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)

log = logging.getLogger("steersman.settings")


def place_in_file(key: str) -> str:
    """Return where the settings file has a key: ``file /etc/steersman.toml:3``."""
    at = re.compile(rf"""\s*(\[+\s*)?["']?{re.escape(key)}["']?\s*[=.\]]""")
    lines = (number for number, line in enumerate(settings_text().splitlines(), 1) if at.match(line))
    number = next(lines, None)
    return f"file {os.environ.get(FILE_VARIABLE)}" + ("" if number is None else f":{number}")


def service_settings() -> dict[str, type[ServiceSettings]]:
    """Return the class of each service's settings."""
    return {service: pkgutil.resolve_name(where) for service, where in SERVICES.items()}


def known_names() -> set[str]:
    """Return the names of the settings of all services."""
    return {name for kind in service_settings().values() for name in kind.model_fields}


def unknown_names() -> dict[str, str]:
    """Return variables and keys of the file that no service knows, each with the known name that is closest, or ''."""
    names = known_names()
    variables = {variable_of(name) for name in names} | set(VARIABLES)
    found: dict[str, str] = {}
    for variable in sorted(os.environ):
        said = variable.upper()
        if said.startswith(PREFIX) and said not in variables and not _is_service_link(said, os.environ[variable]):
            found[variable] = next(iter(difflib.get_close_matches(said, variables, 1)), "")
    for key in sorted(settings_file().keys() - names):
        found[key] = next(iter(difflib.get_close_matches(key, names, 1)), "")
    return found


def _is_service_link(variable: str, value: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(variable)) or (variable.endswith("_PORT") and "://" in value)


def refuse_unknown() -> None:
    """Refuse what no service knows.

    Raises
    ------
    ConfigError
        Names every unknown variable, and every unknown key of the file with its line.
    """
    mode = os.environ.get(UNKNOWN_VARIABLE) or "refuse"
    if mode not in ("refuse", "warn"):
        raise ConfigError(f"{UNKNOWN_VARIABLE} is 'refuse' or 'warn', not {mode!r}")
    refused = []
    for name, close in unknown_names().items():
        is_variable = name.upper().startswith(PREFIX) and name in os.environ
        where = f"variable {name}" if is_variable else f"{place_in_file(name)}: {name}"
        said = f"{where} is known to no service{f'; did you mean {close}?' if close else ''}"
        if is_variable and mode == "warn":
            log.warning("%s", said)
        else:
            refused.append(said)
    if refused:
        raise ConfigError(f"{'; '.join(refused)}. 'steersman config show' lists what there is")


def variable_of(name: str) -> str:
    """Return the variable of a setting."""
    return f"{PREFIX}{name}".upper()


def masked(value: Any) -> Any:
    """Return a value without what is secret in it."""
    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return without_passwords(value) if isinstance(value, str) else value


class ServiceSettings(BaseSettings):
    """Base of the settings of a service."""

    @classmethod
    def load(cls, **given: object) -> Self:
        """Read the settings as a service does when it starts.

        Parameters
        ----------
        **given
            What the command line said; None where it said nothing.

        Raises
        ------
        ConfigError
            Names every setting that cannot be used, where it came from, and everything that no service knows.
        """
        refuse_unknown()
        return cls.read(**given)

    @classmethod
    def read(cls, **given: object) -> Self:
        """Read the settings, whatever else there is.

        Raises
        ------
        ConfigError
            Names every setting that cannot be used, and where it came from.
        """
        passed = {name: value for name, value in given.items() if value is not None}
        try:
            return cls(**passed)
        except ValidationError as error:
            raise ConfigError("; ".join(cls.wrong(error, passed))) from error

    @classmethod
    def wrong(cls, error: ValidationError, passed: Mapping[str, object]) -> list[str]:
        """Say of every setting that cannot be used where it came from, and why; never its value, which may be secret."""
        return [
            f"{'.'.join(map(str, p['loc']))}: {p['msg']} ({cls.origin(str(p['loc'][0]) if p['loc'] else '', passed)})"
            for p in error.errors(include_input=False, include_url=False)
        ]

    @classmethod
    def origin(cls, name: str, passed: Mapping[str, object]) -> str:
        """Return where a setting comes from: command line, variable, file with its line, or default."""
        if name in passed:
            return "command line"
        if (variable := variable_of(name)) in {known.upper() for known in os.environ}:
            return f"environment {variable}"
        return place_in_file(name) if name in settings_file() else "default"

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
