"""Statements are taken apart in the same way wherever they stand."""

from __future__ import annotations

import pytest

from console.gateway.statements import parse, parse_in_two


@pytest.mark.parametrize(
    "text",
    [b"INSERT INTO t FORMAT Native", b"INSERT INTO t (a) SETTINGS x = 1 FORMAT TSV ;  ", b"INSERT INTO t FORMAT TSV\r\n", b"INSERT INTO t FORMAT TSV 1",
     b"INSERT INTO t FORMAT", b"INSERT INTO t VALUES", b"INSERT INTO t SELECT", b"INSERT INTO t FROM INFILE 'x' FORMAT TSV", b"SELECT 1 FORMAT", b"SELECT", b""],
)  # fmt: skip
@pytest.mark.parametrize(
    "body", [b"1\n2\n", b"\n1", b"\r\n 1", b" TSV\n1", b"; 1 FORMAT TSV\n1", b"(1)", b"\x00\xff\n", b""]
)
def test_in_the_url_and_in_the_body(text: bytes, body: bytes):
    joined = text + b"\n" + body if text and body else text or body
    assert parse_in_two(text, body) == parse(joined)
