"""A learner's state whose digest is right and whose content is not: anybody who can write can make a digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from learners.state import MAGIC, VERSION, Origin, StateError, pack, unpack

HEADER: dict[str, Any] = {"key": "a/b", "lineage": "x", "epoch": 1, "version": 2, "began": [], "sources": [[0, 1, 2]]}


def sealed(header: bytes, raw: bytes) -> bytes:
    body = MAGIC + bytes([VERSION]) + len(header).to_bytes(4, "little") + header + raw
    return body + hashlib.sha256(body).digest()


def test_round_trip() -> None:
    origin, _, array = unpack(pack(HEADER, np.arange(6.0).reshape(2, 3)))
    assert (origin.key, origin.epoch, origin.sources) == ("a/b", 1, {0: (1, 2)})
    assert array.shape == (2, 3)


@pytest.mark.parametrize(
    "header",
    [
        b"no json", b"[" * 100_000, b"[1]", b"\xff", b"{}",
        *(json.dumps({**HEADER, "shape": [1], **wrong}).encode() for wrong in (
            {"shape": [-1]}, {"shape": [2]}, {"shape": "1"}, {"shape": [1.0]}, {"shape": None}, {"epoch": "1"}, {"version": -1},
            {"epoch": True}, {"key": 3}, {"sources": [[0, 1]]}, {"sources": 7}, {"began": [["a", 1, 2]]}, {"began": [[[], 1, 2]]},
        )),
    ],
)  # fmt: skip
def test_a_malformed_header_is_refused(header: bytes) -> None:
    data = sealed(header, np.ones(1).tobytes())
    with pytest.raises(StateError):
        unpack(data)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_sums_must_be_finite(bad: float) -> None:
    with pytest.raises(StateError, match="not finite"):
        unpack(pack(HEADER, np.array([1.0, bad])))


def test_whose_it_is_can_be_asked_without_the_sums() -> None:
    assert Origin.of(pack(HEADER, np.ones(2))).version == 2
    with pytest.raises(StateError):
        Origin.of(sealed(json.dumps({"key": "a"}).encode(), b""))
