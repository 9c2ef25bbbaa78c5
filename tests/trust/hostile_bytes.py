"""Hostile byte strings, by number: the same seed and number give the same bytes."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable
from functools import partial

import cramjam
import numpy as np
from safetensors.numpy import save

from learners.state import pack
from steersman import contracts
from steersman.codec import Codec
from tests.doors.payloads import request
from tests.sinks.hostile import any_record
from tests.streams.trace_events import POLICIES
from tests.trust.otlp_canaries import otlp_json
from tests.trust.snapshots import snapshot

MAX_BYTES = 2 << 20
_LONG = b"\xff" * 9 + b"\x01"
_BOMBS: tuple[bytes, ...] = (
    b"\xfe\xff\xff\xff\x0f",  # 2^31 - 1 items
    b"\x01" + _LONG,  # a block of -1 items and any number of bytes
    _LONG,
    b"\x80" * 64,
    b"\x00" * 64,
    b"\x02" * 64,
    b"[" * 4000,
    b'{"a":' * 2000,
    b"1" * 5000,
    b"-1e999",
    b"NaN",
    b'"\\ud800"',
    b"\xed\xa0\x80",
    b"/*" * 500,
    b"'" * 999,
    b"SLRN\x02\xff\xff\xff\xff",
    b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
    b"00-" + b"f" * 32 + b"-" + b"f" * 16 + b"-ff-more",
)


class Hostile:
    """Makes them.

    Parameters
    ----------
    seed
        Of all.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        r = random.Random(seed)
        self._good: list[bytes] = [snapshot_bytes()]
        self._heads: list[bytes] = [b"\x00\x00\x00\x00\x07", b"\xc3\x01"]
        for name in contracts.NAMES:
            codec = Codec(name)
            self._heads.append(codec.head)
            if name != "policy_snapshot":
                self._good += [_encodable(codec, r) for _ in range(8)]
        header = {
            "key": "a/b",
            "lineage": "x",
            "epoch": 1,
            "version": 2,
            "began": [],
            "sources": [[0, 1, 2]],
            "rows": [0],
        }
        self._good += [pack(header, np.ones((1, 4))), pack(header | {"epoch": "1"}, np.full((1, 4), np.nan))]
        plain = b"steersman " * 200
        zeros = bytes(8 << 20)
        for squeeze in (partial(gzip.compress, mtime=0), zlib.compress, cramjam.zstd.compress, cramjam.lz4.compress):
            self._good += [bytes(squeeze(plain)), bytes(squeeze(zeros))]
        self._good += [
            json.dumps({"event_id": "a", "outcome": "acked", "partition": 0, "offset": 1}).encode(),
            json.dumps({"next_offset": 3, "meta": None}).encode(),
            json.dumps(contracts.schema("reward")).encode(),
            b'INSERT INTO t SETTINGS a=1 FORMAT JSONEachRow {"a": 1}',
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ]
        spans = request(
            {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 7, "a": {"b": [1.5, True, b"x"]}},
            events=[
                ("gen_ai.evaluation.result", {"gen_ai.evaluation.name": "q", "gen_ai.evaluation.score.value": 0.5})
            ],
        )
        for body in (spans.SerializeToString(), otlp_json(spans)):
            self._good += [body, gzip.compress(body, mtime=0)]
        self._good += [
            bytes(cramjam.snappy.compress_raw(plain)),
            b"\x82SNAPPY\0" + bytes(8) + b"\0\0\0\7abcdefg",
            _memory(),
        ]
        self._good.append(json.dumps([{"trace_id": "0" * 31 + "1", "value": 0.5, "comment": "c"}]).encode())
        self._ways: tuple[Callable[[random.Random], bytes], ...] = (
            self._flipped, self._flipped, self._flipped, self._cut, self._spliced, self._bombed, self._bombed, self._headed, self._random,
        )  # fmt: skip

    def make(self, number: int) -> bytes:
        """Bytes number so-and-so."""
        r = random.Random(self._seed * 1_000_003 + number)
        if number % 5000 == 4999:  # a few are as long as is allowed, and longer
            bomb = r.choice(_BOMBS)
            return (self._headed(r)[:10] + bomb * (MAX_BYTES // len(bomb)))[:MAX_BYTES]
        return r.choice(self._ways)(r)[:MAX_BYTES]

    def _flipped(self, r: random.Random) -> bytes:
        value = bytearray(r.choice(self._good))
        for _ in range(r.choice((1, 1, 2, 5, 20))):
            at = r.randrange(len(value))
            value[at] = r.choice((r.randrange(256), value[at] ^ 1, value[at] ^ 0x80, 0, 255))
        return bytes(value)

    def _cut(self, r: random.Random) -> bytes:
        value = r.choice(self._good)
        return value[: r.randrange(len(value))] if r.random() < 0.7 else value + r.randbytes(r.randrange(1, 20))

    def _spliced(self, r: random.Random) -> bytes:
        one, other = r.choice(self._good), r.choice(self._good)
        return one[: r.randrange(len(one))] + other[r.randrange(len(other)) :]

    def _bombed(self, r: random.Random) -> bytes:
        value = r.choice(self._good)
        at = r.randrange(len(value))
        return value[:at] + r.choice(_BOMBS) + value[at + r.randrange(3) :]

    def _headed(self, r: random.Random) -> bytes:
        return r.choice(self._heads) + (r.choice(_BOMBS) if r.random() < 0.5 else r.randbytes(r.randrange(200)))

    def _random(self, r: random.Random) -> bytes:
        return r.randbytes(int(2 ** r.uniform(0, 11)))


def _memory() -> bytes:
    """A neural learner's memory, which is safetensors, of three rewards."""
    spec = next(iter(POLICIES))
    arrays = {
        "numbers": np.array([9, 3, 2, 1, -1, -1, -1, 0]),
        "abandoned": np.array([1]),
        "blocks": np.array([[0, 3, 1, 1]]),
        "block.sums": np.ones((1, 3, 4)),
        "block.each": np.ones((3, 4)),
        "replay.x": np.ones((3, spec.features.dim), np.float32),
        "replay.y": np.ones((3, 4), np.float32),
        "replay.arms": np.zeros(3, np.int64),
        "replay.rated": np.ones(3, np.bool_),
        "replay.weights": np.ones(3, np.float32),
        "changes": np.array([[1, 1]]),
        "change.factors": np.ones((1, len(spec.arms))),
    }
    return save(arrays)


def snapshot_bytes() -> bytes:
    """A policy snapshot, encoded."""
    return Codec("policy_snapshot").encode(snapshot().to_record())


def _encodable(codec: Codec, r: random.Random) -> bytes:
    while True:
        try:
            return codec.encode(any_record(r, codec.name))
        except ValueError:
            continue
