"""Who asks: ClickHouse's three ways to say so over HTTP. Pure.

Headers ``X-ClickHouse-User`` and ``X-ClickHouse-Key``, HTTP basic authentication (RFC 7617), or the parameters ``user`` and
``password``; one of them at a time, as on a server.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from console.gateway.users import User, Users

REQUIRED_PASSWORD, AUTHENTICATION_FAILED = 194, 516
"""ClickHouse's error codes."""


class LoginRefused(Exception):
    """Nobody, or not who he says he is.

    Attributes
    ----------
    status
        HTTP status: 401 where nothing was said, 403 where it was wrong.
    code
        ClickHouse's error code.
    """

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


def login(users: Users, headers: Mapping[str, str], params: Mapping[str, str]) -> User:
    """Return who asks.

    Parameters
    ----------
    users
        Who may.
    headers
        Of the request; looked up by name.
    params
        Of the URL.

    Raises
    ------
    LoginRefused
        With what to answer; the text says nothing about which half was wrong.
    """
    said = _said(headers, params)
    if users.required and said is None:
        raise LoginRefused(
            401, REQUIRED_PASSWORD,
            "say who you are: X-ClickHouse-User and X-ClickHouse-Key, basic authentication, or user and password in the URL; "
            "'steersman up' keeps the passwords in clickhouse-users.toml of its folder (REQUIRED_PASSWORD)",
        )  # fmt: skip
    name, password = said or ("default", "")
    user = users.find(name, password)
    if user is None:
        raise LoginRefused(
            403, AUTHENTICATION_FAILED,
            f"{name[:64]}: Authentication failed: password is incorrect, or there is no user with such name. (AUTHENTICATION_FAILED)",
        )  # fmt: skip
    return user


def _said(headers: Mapping[str, str], params: Mapping[str, str]) -> tuple[str, str] | None:
    ways: list[tuple[str, str]] = []
    if "X-ClickHouse-User" in headers or "X-ClickHouse-Key" in headers:
        ways.append((headers.get("X-ClickHouse-User", "default"), headers.get("X-ClickHouse-Key", "")))
    if "Authorization" in headers:
        ways.append(_basic(headers["Authorization"]))
    if "user" in params or "password" in params:
        ways.append((params.get("user", "default"), params.get("password", "")))
    if len(ways) > 1:
        raise LoginRefused(
            403, AUTHENTICATION_FAILED, "say who you are in one way, not in several at once (AUTHENTICATION_FAILED)"
        )
    return ways[0] if ways else None


def _basic(header: str) -> tuple[str, str]:
    scheme, _, value = header.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError
        name, colon, password = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")
        if not colon:
            raise ValueError
    except (ValueError, binascii.Error) as error:
        raise LoginRefused(
            403, AUTHENTICATION_FAILED, "the Authorization header is no basic authentication (AUTHENTICATION_FAILED)"
        ) from error
    return name, password
