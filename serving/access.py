"""Who may ask: no pages in a browser (Host, Origin), and only those who know a token."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from steersman.errors import ConfigError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Host names that reach a service bound to the loopback interface."""
MIN_TOKEN = 16
"""Shortest token accepted; unit: characters."""


def allowed_hosts(text: str) -> frozenset[str]:
    """Host names of a comma-separated list, lower case, and those of the loopback interface."""
    more = (name.strip().lower() for name in text.split(","))
    return LOOPBACK | {name for name in more if name}


def long_enough(token: str, variable: str) -> str:
    """Return a token; ConfigError, which does not hold it, when it is too short."""
    if len(token) < MIN_TOKEN:
        raise ConfigError(f"{variable} has {len(token)} characters; use at least {MIN_TOKEN}")
    return token


def foreign_host(host: str | None, origin: str | None, hosts: frozenset[str]) -> str | None:
    """Return the Host or Origin that is not served here, None when all is well.

    Another Host is what DNS rebinding sends, another Origin a form on somebody's page.

    Parameters
    ----------
    host, origin
        Headers of the request.
    hosts
        Host names that are served, lower case, without port.
    """
    named = [host or ""]
    if origin:
        named.append(urlsplit(origin).netloc)
    for netloc in named:
        try:
            name = urlsplit(f"//{netloc}").hostname or ""
        except ValueError:
            name = netloc
        if name.lower() not in hosts:
            return name
    return None


class Tokens:
    """Bearer tokens (RFC 6750), each of one tenant.

    Parameters
    ----------
    tenants
        Token -> tenant; empty lets everybody in as `anonymous`.
    anonymous
        Tenant of those who need no token.
    """

    def __init__(self, tenants: Mapping[str, str], anonymous: str) -> None:
        self._tenants = {token.encode(): tenant for token, tenant in tenants.items()}
        self._anonymous = anonymous

    @property
    def required(self) -> bool:
        """Whether a token is needed."""
        return bool(self._tenants)

    def tenant(self, authorization: str | None) -> str | None:
        """Return the tenant of an Authorization header, None when it opens nothing.

        Every token is compared, each in constant time: how long it takes tells nothing about any of them.
        """
        if not self._tenants:
            return self._anonymous
        scheme, _, given = (authorization or "").partition(" ")
        offered = given.strip().encode("utf-8", "replace") if scheme.lower() == "bearer" else b""
        found: str | None = None
        for token, tenant in self._tenants.items():
            if hmac.compare_digest(token, offered):
                found = tenant
        return found


def read_tokens(file: Path) -> dict[str, str]:
    """Read a tokens file: per line a tenant and its token; ``#`` begins a comment.

    Raises
    ------
    ConfigError
        The file cannot be read, or a line is not of that form; no token is ever part of the message.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the tokens file {file} cannot be read: {error}") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or len(words[1]) < MIN_TOKEN:
            raise ConfigError(
                f"{file}, line {number}: write a tenant and its token, of at least {MIN_TOKEN} characters without spaces"
            )
        found[words[1]] = words[0]
    if not found:
        raise ConfigError(f"the tokens file {file} holds no token: write one line per tenant, '<tenant> <token>'")
    return found
