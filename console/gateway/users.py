"""Who may use the endpoint, and for what: users with passwords, each reading or writing, readers perhaps of one tenant only.

They stand in a TOML file that only its owner may open, a table each::

    [reader]
    password = "..."                # or password_sha256 = "64 hex digits"

    [steersman]
    password = "..."
    access = "write"

    [acme]
    password_sha256 = "..."
    tenant = "acme"                 # sees the rows of this tenant, nothing else
    max_execution_time = 10         # limits of its own: the names of `Limits`

Passwords are long and random, which is why a plain SHA-256 of them is enough, as in ClickHouse's own users.xml.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from serving.access import MIN_TOKEN
from serving.private_file import refuse_public, write_private
from steersman.errors import ConfigError

WRITER, READER = "steersman", "reader"
"""Users of a file that the local stack makes."""


@dataclass(frozen=True)
class Limits:
    """What one statement of a reader may cost, by the names of ClickHouse's settings; a client can ask for less, never for more.

    Attributes
    ----------
    max_execution_time
        Unit: seconds.
    max_memory_usage
        Unit: bytes.
    max_rows_to_read, max_bytes_to_read
        Rows and bytes read from tables, bytes uncompressed.
    max_result_rows, max_result_bytes
        Rows and bytes of the result, bytes uncompressed.
    """

    max_execution_time: int = 30
    max_memory_usage: int = 2_000_000_000
    max_rows_to_read: int = 2_000_000_000
    max_bytes_to_read: int = 200_000_000_000
    max_result_rows: int = 1_000_000
    max_result_bytes: int = 256 << 20


LIMITS = tuple(one.name for one in fields(Limits))
"""Names of the limits."""


@dataclass(frozen=True)
class User:
    """Somebody who has shown a password.

    Attributes
    ----------
    name
        Name.
    writes
        Whether everything may be done, or only reading.
    tenant
        Whose rows are seen; None for all.
    limits
        Of a reader's statements.
    """

    name: str
    writes: bool = False
    tenant: str | None = None
    limits: Limits = field(default_factory=Limits)


ANYBODY = User("default", writes=True)
"""Who asks where no login is wanted."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    password: Annotated[str, Field(min_length=MIN_TOKEN, max_length=256)] | None = None
    password_sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    access: Literal["read", "write"] = "read"
    tenant: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    max_execution_time: Annotated[int, Field(ge=1)] = Limits.max_execution_time
    max_memory_usage: Annotated[int, Field(ge=1)] = Limits.max_memory_usage
    max_rows_to_read: Annotated[int, Field(ge=1)] = Limits.max_rows_to_read
    max_bytes_to_read: Annotated[int, Field(ge=1)] = Limits.max_bytes_to_read
    max_result_rows: Annotated[int, Field(ge=1)] = Limits.max_result_rows
    max_result_bytes: Annotated[int, Field(ge=1)] = Limits.max_result_bytes

    @model_validator(mode="after")
    def _consistent(self) -> _Entry:
        if (self.password is None) == (self.password_sha256 is None):
            raise ValueError("write password or password_sha256, one of the two")
        if self.access == "write" and self.tenant is not None:
            raise ValueError('a user of one tenant reads only: take tenant or access = "write" away')
        return self


_FILE = TypeAdapter(dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@-]{1,64}$")], _Entry])


class Users:
    """The users of the endpoint.

    Parameters
    ----------
    users
        SHA-256 of the password (32 bytes), and the user; none lets everybody in as `ANYBODY`.
    """

    def __init__(self, users: Iterable[tuple[bytes, User]]) -> None:
        self._users = {user.name: (digest, user) for digest, user in users}

    @property
    def required(self) -> bool:
        """Whether a password is needed."""
        return bool(self._users)

    def find(self, name: str, password: str) -> User | None:
        """Return the user of that name when the password is his, None otherwise.

        Digests are compared in constant time, and an unknown name costs what a known one does.
        """
        if not self._users:
            return ANYBODY
        offered = hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest()
        digest, user = self._users.get(name, (bytes(32), None))
        return user if hmac.compare_digest(digest, offered) else None


def read_users(file: Path) -> Users:
    """Read a users file.

    Raises
    ------
    ConfigError
        It cannot be read, is open to others, or an entry cannot be used; no password is ever part of the message.
    """
    found = _entries(file)
    made = []
    for name, entry in found.items():
        digest = (
            bytes.fromhex(entry.password_sha256)
            if entry.password_sha256 is not None
            else hashlib.sha256((entry.password or "").encode()).digest()
        )
        limits = Limits(**{limit: getattr(entry, limit) for limit in LIMITS})
        made.append((digest, User(name, entry.access == "write", entry.tenant, limits)))
    return Users(made)


def passwords(file: Path) -> dict[str, str]:
    """Return the passwords that a users file holds in clear, by name; raises as `read_users`."""
    return {name: entry.password for name, entry in _entries(file).items() if entry.password is not None}


def make_users(file: Path, given: Mapping[str, str] | None = None) -> None:
    """Write a users file with one who writes and one who reads; nothing happens where there is one.

    Parameters
    ----------
    file
        Where to; its folder must exist.
    given
        Passwords of `WRITER` and `READER`; new random ones unless given.
    """
    if file.exists():
        return
    given = given or {}
    text = "# Users of the ClickHouse endpoint, docs/clickhouse-endpoint.md. Whoever knows a password here may do as its entry says.\n"
    for name, access in ((WRITER, "write"), (READER, "read")):
        password = given.get(name) or secrets.token_hex(24)
        text += f'\n[{name}]\npassword = {json.dumps(password)}\naccess = "{access}"\n'
    write_private(file, text)


def _entries(file: Path) -> dict[str, _Entry]:
    try:
        refuse_public(file, "passwords")
        found = tomllib.loads(file.read_text(encoding="utf-8"))
        entries = _FILE.validate_python(found)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the users file {file} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the users file {file} is not TOML: {error}") from error
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"{file}, {where}: {problem['msg']}") from None
    if not entries:
        raise ConfigError(f"the users file {file} names nobody: write a table for each user, or start with --no-login")
    return entries
