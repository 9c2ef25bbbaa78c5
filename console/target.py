"""Where the broker and the store are: command line over environment over the running local stack over defaults."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from steersman.registry import Registry
from steersman.settings_file import settings_file
from steersman.topics import Topics
from streams.settings import StreamSettings

DEFAULT_BROKERS = "127.0.0.1:9092"
DEFAULT_CLICKHOUSE = "http://127.0.0.1:8123"


def registry_of(topics: Topics) -> Registry | None:
    """Return the schema registry of the settings, None for none."""
    url = StreamSettings.read().registry_url
    return Registry(url, topics=topics) if url else None


def home() -> Path:
    """Return the folder of the local stack's data, logs and state (`STEERSMAN_HOME`, default `.steersman`)."""
    return Path(os.environ.get("STEERSMAN_HOME", ".steersman")).absolute()


@dataclass(frozen=True)
class Target:
    """Addresses the console works against.

    Attributes
    ----------
    brokers
        Kafka bootstrap servers.
    clickhouse
        URL of a ClickHouse-HTTP endpoint, or `chdb:///path` for the data a local stack left behind.
    prefix
        Prefix of the topic names.
    origin
        Where the addresses came from, for messages.
    clickhouse_read
        Address of the store for those who only read; empty where there is but one.
    priced
        Whether these are the brokers of a running local stack whose workers price calls (`STEERSMAN_PRICES`).
    """

    brokers: str
    clickhouse: str
    prefix: str
    origin: str
    clickhouse_read: str = ""
    priced: bool = False

    @property
    def reading(self) -> str:
        """Address of the store for what only reads."""
        return self.clickhouse_read or self.clickhouse


def state_file() -> Path:
    return home() / "stack.json"


def running_stack() -> dict[str, str] | None:
    """Return the addresses the running local stack left in its state file, None without a running one."""
    try:
        state = json.loads(state_file().read_text())
        os.kill(int(state["pid"]), 0)
    except (OSError, ValueError, KeyError):
        return None
    return {k: str(v) for k, v in state.items()}


def left_behind() -> Path | None:
    """Return the newest ClickHouse data folder that a stopped local stack left, None when there is none."""
    folders = [p for p in home().glob("*/clickhouse") if p.is_dir()]
    return max(folders, key=lambda p: p.stat().st_mtime, default=None)


def resolve(brokers: str | None = None, clickhouse: str | None = None) -> Target:
    """Decide which broker and store a command works against.

    Parameters
    ----------
    brokers, clickhouse
        What the command line said, None when it said nothing.
    """
    file = {key: str(value) for key, value in settings_file().items()}
    prefix = os.environ.get("STEERSMAN_TOPIC_PREFIX") or file.get("topic_prefix", "steersman")
    env_brokers = os.environ.get("STEERSMAN_BROKERS") or file.get("brokers")
    env_clickhouse = os.environ.get("STEERSMAN_CLICKHOUSE_URL") or file.get("clickhouse_url")
    stack = running_stack()
    if brokers or clickhouse:
        origin = "command line"
    elif env_brokers or env_clickhouse:
        origin = "environment"
    else:
        origin = "running stack" if stack else "defaults"
    brokers = brokers or env_brokers or (stack or {}).get("brokers") or DEFAULT_BROKERS
    read = "" if clickhouse or env_clickhouse else (stack or {}).get("clickhouse_read", "")
    clickhouse = clickhouse or env_clickhouse or (stack or {}).get("clickhouse")
    if clickhouse is None:
        data = left_behind()
        clickhouse = f"chdb://{data}" if data else DEFAULT_CLICKHOUSE
    priced = stack is not None and brokers == stack["brokers"] and bool(stack.get("prices"))
    return Target(brokers, clickhouse, prefix, origin, read, priced)
