"""No form of an address shows its password, whatever the password and however wrong the address."""

from __future__ import annotations

import pytest

from console.gateway.users import WRITER
from serving.addresses import without_passwords
from serving.settings import masked
from sinks.clickhouse import connect, shown
from steersman.errors import ConfigError

PASSWORDS = ("s3cret", "s3c/ret", "s3c@ret", "s3c:ret", "s3c#ret", "s3c?ret", "s3c/@:ret", "//s3c@ret")


@pytest.mark.parametrize("password", PASSWORDS)
def test_it_is_never_shown(password: str) -> None:
    for address in (f"http://{WRITER}:{password}@h:8123/db", f"me:{password}@h:8123", f"https://:{password}@h"):
        for text in (address, f"cannot reach {address.replace('me:', '//me:')}, is it up?"):
            for seen in (without_passwords(text), masked(text), shown(text)):
                assert "s3c" not in seen
                assert "ret@" not in seen
                assert ":***@h" in seen


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("rest", ["h:port/live", "[h:8123/live", "h:99999999/live", "h:8123/no such", "h"])
def test_an_address_that_is_none_is_refused_without_it(password: str, rest: str) -> None:
    for address in (
        f"ftp://me:{password}@{rest}",
        f"me:{password}@{rest}",
        f"http://me:{password}@{rest.replace('8123', 'x')}",
    ):
        if address.endswith("@h") and address.startswith("http"):
            continue  # a good one, once the password is encoded
        with pytest.raises(ConfigError) as refused:
            connect(address)
        assert "s3c" not in str(refused.value)
        assert refused.value.__cause__ is None


def test_what_has_none_stays() -> None:
    for text in ("http://127.0.0.1:8123", "http://user@h:1/db", "k1:9092,k2:9092", "mail a@b.example", "a: b@c"):
        assert without_passwords(text) == text
