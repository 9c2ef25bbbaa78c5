"""Settings: every field of every service, with its variable, default and meaning."""

from __future__ import annotations

import re
from typing import Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from manual.reference.markdown import code, table

_HEAD = """# Settings

Command line over environment over the TOML file of `STEERSMAN_CONFIG` over defaults. A setting `brokers` is the variable `STEERSMAN_BROKERS` and
the key `brokers` of the file, which is flat and serves all services. `steersman config show` says what holds here, and where it came from; secrets
are masked, and names that no service knows are refused.
"""
_AGENT = """
## Agent services

Read by `Tracer`, `PolicySubscriber` and their like where the constructor is not told otherwise.

| variable | says |
| --- | --- |
| `STEERSMAN_BROKERS` | Kafka bootstrap servers; `127.0.0.1:9092` |
| `STEERSMAN_TENANT` | tenant; `default` |
| `STEERSMAN_TOPIC_PREFIX` | prefix of the topic names; `steersman` |
| `STEERSMAN_PRICES` | price table for calls that report no cost; none |
| `STEERSMAN_POLICY_KEYS` | files of the public keys whose signature makes a policy good, comma-separated; none |
| `STEERSMAN_POLICY_SIGNATURES` | `require`, `warn` or `off`; `require` as soon as there are keys |

## All

| variable | says |
| --- | --- |
| `STEERSMAN_CONFIG` | path of the TOML file; none |
| `STEERSMAN_HOME` | folder of the local stack's data, logs and addresses; `.steersman` |
"""


def services() -> dict[str, type[BaseSettings]]:
    """Return the settings classes by the title of their section."""
    from doors.settings import DoorSettings
    from page.settings import PageSettings
    from sinks.settings import SinkSettings
    from streams.settings import StreamSettings

    return {"Stream worker": StreamSettings, "Sink": SinkSettings, "Doors": DoorSettings, "Live page": PageSettings}


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for title, kind in services().items():
        meanings = described(kind)
        rows = [
            (code(f"STEERSMAN_{name}".upper()), default(field.get_default(call_default_factory=True)), meanings[name])
            for name, field in kind.model_fields.items()
        ]
        parts += [f"## {title}", "", table(("variable", "default", "says"), rows)]
    return "\n".join([*parts, _AGENT.lstrip("\n")])


def default(value: Any) -> str:
    """Return a default as a reader would write it."""
    if value is None or value == "":
        return ""
    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    if isinstance(value, bool):
        value = str(value).lower()
    return code(value)


def described(kind: type[BaseSettings]) -> dict[str, str]:
    """Return the meaning of every field: its description, or else what the class's docstring says in ``Attributes``."""
    from_docstring: dict[str, str] = {}
    names: list[str] = []
    for line in (kind.__doc__ or "").partition("Attributes\n")[2].splitlines():
        heading = re.fullmatch(r"    (\w+(?:, \w+)*)", line)
        if heading:
            names = heading.group(1).split(", ")
        elif line.startswith("        "):
            for name in names:
                from_docstring[name] = f"{from_docstring.get(name, '')} {line.strip()}".strip()
    found = {}
    for name, field in kind.model_fields.items():
        found[name] = (field.description or from_docstring.get(name, "")).replace("``", "`")
    return found
