"""Who may use the endpoint: the users file, and ClickHouse's ways to log in over HTTP."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from multidict import CIMultiDict

from console.gateway.login import LoginRefused, login
from console.gateway.users import ANYBODY, READER, WRITER, Limits, Users, make_users, passwords, read_users
from serving.private_file import write_private
from steersman.errors import ConfigError

PASSWORD = "correct-horse-battery"


def file(tmp_path: Path, text: str) -> Path:
    written = tmp_path / "users.toml"
    write_private(written, text)
    return written


def test_a_new_file_has_one_who_writes_and_one_who_reads_and_stays(tmp_path: Path) -> None:
    made = tmp_path / "users.toml"
    make_users(made)
    before = made.read_text()
    make_users(made)
    assert made.read_text() == before
    assert made.stat().st_mode & 0o777 == 0o600
    known = passwords(made)
    assert set(known) == {WRITER, READER}
    assert len({*known.values()}) == 2
    assert all(len(password) == 48 for password in known.values())
    users = read_users(made)
    writer, reader = (users.find(name, known[name]) for name in (WRITER, READER))
    assert writer is not None
    assert reader is not None
    assert (writer.writes, reader.writes) == (True, False)
    assert users.find(READER, known[WRITER]) is None
    assert users.find("nobody", known[WRITER]) is None
    assert users.find(WRITER, "") is None
    assert users.find(WRITER, "\udcff") is None


def test_tenants_hashes_and_limits_of_their_own(tmp_path: Path) -> None:
    digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
    users = read_users(file(tmp_path, f'[acme]\npassword_sha256 = "{digest}"\ntenant = "acme"\nmax_result_rows = 7\n'))
    user = users.find("acme", PASSWORD)
    assert user is not None
    assert (user.tenant, user.writes, user.limits) == ("acme", False, Limits(max_result_rows=7))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a", "not TOML"),
        ("", "names nobody"),
        ('[a]\npassword = "short"', "a.password"),
        ("[a]\n", "one of the two"),
        (f'[a]\npassword = "{PASSWORD}"\npassword_sha256 = "{"0" * 64}"', "one of the two"),
        (f'[a]\npassword = "{PASSWORD}"\nacess = "write"', "acess"),
        (f'[a]\npassword = "{PASSWORD}"\naccess = "write"\ntenant = "t"', "reads only"),
        (f'[a]\npassword = "{PASSWORD}"\nmax_execution_time = 0', "max_execution_time"),
        (f'["a b"]\npassword = "{PASSWORD}"', "a b"),
        (f'a = "{PASSWORD}"', "a:"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_no_password_shown(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        read_users(file(tmp_path, text))
    assert PASSWORD not in str(refused.value)


def test_a_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    public = file(tmp_path, f'[a]\npassword = "{PASSWORD}"')
    public.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_users(public)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_users(tmp_path / "none")


def _basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "params"),
    [
        ({"x-clickhouse-user": "a", "X-CLICKHOUSE-KEY": PASSWORD}, {}),
        (_basic("a", PASSWORD), {}),
        ({}, {"user": "a", "password": PASSWORD}),
    ],
)
def test_three_ways_to_log_in(tmp_path: Path, headers: dict[str, str], params: dict[str, str]) -> None:
    users = read_users(file(tmp_path, f'[a]\npassword = "{PASSWORD}"'))
    assert login(users, CIMultiDict(headers), params).name == "a"


@pytest.mark.parametrize(
    ("headers", "params", "status"),
    [
        ({}, {}, 401),
        ({"X-ClickHouse-User": "a"}, {}, 403),
        ({"X-ClickHouse-Key": PASSWORD}, {}, 403),
        (_basic("a", PASSWORD + "x"), {}, 403),
        (_basic("A", PASSWORD), {}, 403),
        ({"Authorization": f"Bearer {PASSWORD}"}, {}, 403),
        ({"Authorization": "Basic !!"}, {}, 403),
        ({"Authorization": "Basic YQ=="}, {}, 403),
        ({"Authorization": "Basic //8="}, {}, 403),
        ({}, {"user": "a"}, 403),
        ({}, {"user": "a' OR 1=1 --", "password": "x"}, 403),
        (_basic("a", PASSWORD), {"user": "a", "password": PASSWORD}, 403),
    ],
)
def test_what_opens_nothing(tmp_path: Path, headers: dict[str, str], params: dict[str, str], status: int) -> None:
    users = read_users(file(tmp_path, f'[a]\npassword = "{PASSWORD}"'))
    with pytest.raises(LoginRefused) as refused:
        login(users, CIMultiDict(headers), params)
    assert refused.value.status == status
    assert PASSWORD not in str(refused.value)


def test_without_users_everybody_may_do_everything() -> None:
    assert login(Users([]), CIMultiDict(), {}) is ANYBODY
    assert login(Users([]), CIMultiDict(_basic("x", "y")), {}) is ANYBODY
