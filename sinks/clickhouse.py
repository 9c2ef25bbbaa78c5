"""Clients of ClickHouse: the same code for a server, for the local gateway and for chDB data on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import lz4.frame  # type: ignore[import-untyped]
from clickhouse_connect.driver.exceptions import ClickHouseError

from serving.addresses import without_passwords
from steersman.errors import ConfigError, Unreachable

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# async_insert is the default of servers since 26.3; its deduplication is not the one we rely on.
_SETTINGS = {"async_insert": "0"}
_WHO = "check the user and password in STEERSMAN_CLICKHOUSE_URL; a local stack's are in clickhouse-users.toml of its folder"


def connect(url: str, *, create_database: bool = False, timeout_s: int = 60) -> Client:
    """Connect to ClickHouse.

    Parameters
    ----------
    url
        `http://host:port`, `https://user:password@host:port/database` (user and password percent-encoded), or
        `chdb:///path` for a data folder that no process has open. Without a database, `default`.
    create_database
        Create the database when it is missing.
    timeout_s
        Longest wait for a reply; unit: seconds.

    Returns
    -------
    Client
        Times come back as aware datetimes in UTC. One client is for one thread at a time.

    Raises
    ------
    ConfigError
        The address is not one.
    Unreachable
        Nobody answers there, or the answer is a refusal.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its message may quote a part of the password: of one with / in it, the beginning is the port
        raise ConfigError(
            f"ClickHouse address {shown(url)!r}: host or port is none; write / @ : in a password as %2F %40 %3A"
        ) from None
    if parts.scheme == "chdb":
        return _open_folder(parts.path)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"ClickHouse address {shown(url)!r} is not usable: write http://host:port or https://user:password@host:port/database"
        )
    database = parts.path.strip("/") or "default"
    if not _DATABASE.match(database):
        raise ConfigError(
            f"ClickHouse address {shown(url)!r}: the name of a database is a letter or _, then letters, digits and _"
        )
    options: dict[str, Any] = {
        "interface": parts.scheme,
        "host": parts.hostname,
        "port": port or (8443 if parts.scheme == "https" else 8123),
        "username": unquote(parts.username or "default"),
        "password": unquote(parts.password or ""),
        # Shared by the threads of nobody, but the server would lock the session while an insert hangs.
        "autogenerate_session_id": False,
        "compress": parts.hostname not in ("127.0.0.1", "localhost", "::1"),
        "connect_timeout": 5,
        "send_receive_timeout": timeout_s,
        "tz_mode": "aware",
    }
    try:
        if create_database and database != "default":
            with clickhouse_connect.get_client(**options) as client:
                client.command(f"CREATE DATABASE IF NOT EXISTS {database}", use_database=False)
        client = clickhouse_connect.get_client(database=database, **options)
        for name, value in _SETTINGS.items():
            # A user who only reads may set nothing, and inserts nothing either.
            if (known := client.server_settings.get(name)) is None or not known.readonly:
                client.set_client_setting(name, value)
        return client
    except ClickHouseError as e:
        hint = {
            81: "create the database with 'python -m sinks migrate'",
            194: _WHO,
            516: _WHO,
            195: "its Host allow-list does not name this host",
        }.get(getattr(e, "code", None) or 0, "start one with 'steersman up', or set STEERSMAN_CLICKHOUSE_URL")
        raise Unreachable(f"ClickHouse at {shown(url)}", f"{hint} ({_first_line(e)})") from e


def insert_native(client: Any, table: str, names: Sequence[str], data: bytes, settings: dict[str, Any]) -> None:
    """Insert a block in the Native format, compressed where the client compresses.

    Parameters
    ----------
    client
        What `connect` gave.
    table
        Name of the table.
    names
        Names of the block's columns.
    data
        The block.
    settings
        ClickHouse settings of the insert.
    """
    compression = "lz4" if getattr(client, "write_compression", None) else None
    if compression:
        data = lz4.frame.compress(data)
    client.raw_insert(
        table, column_names=names, insert_block=data, fmt="Native", compression=compression, settings=settings
    )


def _open_folder(path: str) -> Client:
    try:
        return clickhouse_connect.get_client(interface="chdb", path=path, tz_mode="aware", settings=_SETTINGS)
    except (ClickHouseError, RuntimeError, ImportError) as e:
        raise Unreachable(
            f"the chDB data in {path}",
            f"one process at a time may have it open, and the 'embedded' extra must be installed ({_first_line(e)})",
        ) from e


def shown(url: str) -> str:
    """Return an address without its password."""
    return without_passwords(url)


def _first_line(error: BaseException) -> str:
    return without_passwords(str(error).partition("\n")[0])[:200]
