"""Policy records that nobody should obey, offered to a policy book that holds a good one.

Kinds: bytes of a signed record changed; records signed by a stranger's key, unsigned, or with a made-up signature; a
signature moved to another content; records copied from another tenant, policy or deployment; replays and older ones,
also of a retired policy; tombstones; records under a trusted signature that break the service's own bounds. Each must
change nothing and be counted by reason, the counts adding up.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from steersman.clock import SYSTEM_CLOCK
from steersman.codec import Codec
from steersman.policy_book import PolicyBook
from steersman.policy_guard import PolicyGuard
from steersman.signing import PolicySigner, PolicyVerifier, generate_keys
from steersman.throttle import Throttle
from steersman.topics import Topics
from tests.trust.part import Found, Say
from tests.trust.snapshots import LEVELS, NOW_US, snapshot

FULL, QUICK = 10_000, 600
KEY = b"acme/research/retrieval"
TOPIC = Topics("steersman").policy
_NOT_ATTACKS = frozenset({"records", "applied", "saved"})
Attack = tuple[bytes | None, bytes | None]
Maker = Callable[[random.Random], Attack]


class Forger:
    """Makes records that must not be obeyed; knows a trusted private key only to sign bad content with it."""

    def __init__(self, folder: Path) -> None:
        for name in ("ours", "stranger"):
            generate_keys(folder / f"{name}.key", folder / f"{name}.pub")
        self.public = folder / "ours.pub"
        self.codec = Codec("policy_snapshot")
        self.ours = PolicySigner(TOPIC, folder / "ours.key")
        self.stranger = PolicySigner(TOPIC, folder / "stranger.key")
        self.elsewhere = PolicySigner(Topics("staging").policy, folder / "ours.key")
        self._newer = self.signed(version=501)
        self.makers: dict[str, Maker] = {
            "mutated": self._mutated,
            "padded": self._padded,
            "forged": lambda r: (KEY, self.signed(self.stranger, version=r.randrange(501, 9_999))),
            "unsigned": lambda r: (KEY, self.codec.encode(snapshot(version=r.randrange(501, 9_999)).to_record())),
            "invented": self._invented,
            "transplanted": self._transplanted,
            "copied_policy": lambda r: (KEY, self._as(b"acme/other", policy="other", epoch=r.randrange(4, 99))),
            "copied_key": lambda r: (KEY, self._as(b"acme/other", epoch=r.randrange(4, 99))),
            "copied_tenant": lambda r: (KEY, self._as(b"evil/research/retrieval", tenant="evil", epoch=r.randrange(4, 99))),
            "copied_deployment": lambda r: (KEY, self.signed(self.elsewhere, epoch=r.randrange(4, 99))),
            "replayed": lambda r: (KEY, self.signed()),
            "older": lambda r: (KEY, self.signed(version=r.randrange(500), created_at=NOW_US + r.randrange(10**9))),
            "older_epoch": lambda r: (KEY, self.signed(epoch=r.randrange(3), version=r.randrange(10**6))),
            "older_retired": lambda r: (KEY, self.signed(version=r.randrange(500), stage="RETIRED")),
            "unsigned_retired": lambda r: (KEY, self.codec.encode(snapshot(version=900, stage="RETIRED").to_record())),
            "tombstone": lambda r: (KEY, None),
            "expired": lambda r: (KEY, self.signed(version=600, not_after=NOW_US - r.randrange(1, 10**12))),
            "foreign_level": lambda r: (KEY, self.signed(version=600, knobs=LEVELS | {"model": ["s", f"x{r.random()}"]})),
            "foreign_knob": lambda r: (KEY, self.signed(version=600, knobs=LEVELS | {f"tool{r.randrange(99)}": [1, 2]})),
            "no_floor": lambda r: (KEY, self.signed(version=600, floor=0.0099 * r.random())),
            "leap": self._leap,
            "overflowing": self._overflowing,
            "not_finite": self._not_finite,
            "misshapen": self._misshapen,
            "too_large": lambda r: (KEY, self._newer + b"\0" * (1 << 20)),
            "garbage": lambda r: (KEY, r.randbytes(r.randrange(0, 400))),
            "no_key": lambda r: (None, self._newer),
        }  # fmt: skip

    def signed(self, signer: PolicySigner | None = None, **changes: Any) -> bytes:
        """A record signed for its own key."""
        made = snapshot(**changes)
        return (signer or self.ours).encode(self.codec, made.key.encode(), made.to_record())

    def _as(self, key: bytes, **changes: Any) -> bytes:
        return self.ours.encode(self.codec, key, snapshot(**changes).to_record())

    def _mutated(self, r: random.Random) -> Attack:
        value = bytearray(self._newer)
        for _ in range(r.choice((1, 1, 1, 2, 8))):
            match r.randrange(4):
                case 0 if value:
                    value[r.randrange(len(value))] ^= 1 << r.randrange(8)
                case 1 if value:
                    del value[r.randrange(len(value)) :]
                case 2:
                    value.insert(r.randrange(len(value) + 1), r.randrange(256))
                case _ if value:
                    at = r.randrange(len(value))
                    value[at : at + 8] = r.randbytes(8)
        return KEY, bytes(value) if bytes(value) != self._newer else self._newer[:-1]

    def _padded(self, r: random.Random) -> Attack:
        """The same content in other bytes: the epoch, the first number, written with a byte more than it needs."""
        start = 10 + 1 + len("acme") + 1 + len("research/retrieval")
        return KEY, self._newer[:start] + bytes((self._newer[start] | 0x80, 0)) + self._newer[start + 1 :]

    def _invented(self, r: random.Random) -> Attack:
        record = snapshot(version=r.randrange(501, 9_999)).to_record()
        return KEY, self.codec.encode(record | {"signature": r.randbytes(r.choice((1, 63, 64, 64, 65, 128)))})

    def _transplanted(self, r: random.Random) -> Attack:
        signature = self.codec.decode(self._newer)["signature"]
        return KEY, self.codec.encode(snapshot(version=r.randrange(502, 9_999)).to_record() | {"signature": signature})

    def _leap(self, r: random.Random) -> Attack:
        tensors = dict(snapshot().tensors)
        tensors["weights.quality"] = (-r.uniform(50, 500) * tensors["weights.quality"]).astype(np.float32)
        return KEY, self.signed(version=600, tensors=tensors)

    def _overflowing(self, r: random.Random) -> Attack:
        """Finite numbers, but too large to reckon with."""
        big = np.float32(r.uniform(2e18, 3e38)).tobytes()
        return self._broken(lambda tensor: tensor.update(data=big * (len(tensor["data"]) // 4)))

    def _broken(self, change: Callable[[dict[str, Any]], None]) -> Attack:
        record = snapshot(version=600).to_record()
        change(record["tensors"][0])
        return KEY, self.ours.encode(self.codec, KEY, record)

    def _not_finite(self, r: random.Random) -> Attack:
        bad = r.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff"))
        return self._broken(lambda tensor: tensor.update(data=bad + tensor["data"][4:]))

    def _misshapen(self, r: random.Random) -> Attack:
        shape = r.choice(([1], [-1, -1], [2**31 - 1] * 8, [], [0]))
        return self._broken(lambda tensor: tensor.update(shape=shape))


class _Clock:
    """Stands still."""

    def now_us(self) -> int:
        return NOW_US

    def monotonic_us(self) -> int:
        return SYSTEM_CLOCK.monotonic_us()


def run(quick: bool, seed: int, say: Say) -> Found:
    """Offer the records one by one; after each, the policy held must be the one from before."""
    n = QUICK if quick else FULL
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        forger = Forger(Path(folder))
        guard = PolicyGuard({"research/retrieval": LEVELS}, min_floor=0.01, max_step=0.5)
        verifier = PolicyVerifier(TOPIC, [forger.public])
        book = PolicyBook("acme", None, None, None, _Clock(), Throttle(), verifier, guard)
        book.read(KEY, forger.signed(), ())
        good = book.get("research/retrieval")
        problems: list[str] = []
        if good is None:
            problems.append("the good policy was not taken, so nothing was proved")
        by_kind: Counter[str] = Counter()
        reasons: dict[str, Counter[str]] = {}
        names = sorted(forger.makers)
        for i in range(n):
            kind = names[i % len(names)]
            key, value = forger.makers[kind](rng)
            before = book.counts.copy()
            book.read(key, value, ())
            counted = {name: c for name, c in (book.counts - before).items() if name not in _NOT_ATTACKS}
            reasons.setdefault(kind, Counter()).update(counted)
            by_kind[kind] += 1
            if sum(counted.values()) != 1:
                problems.append(f"{kind}: counted {counted}, not under exactly one reason")
            if book.get("research/retrieval") is not good or set(book.held()) != {"research/retrieval"}:
                problems.append(f"{kind}: accepted (record {i}, seed {seed})")
                break
            if (i + 1) % 2000 == 0:
                say(f"policies: {i + 1} of {n} records")
        accepted = book.counts["applied"] - 1
        book.read(KEY, forger.signed(version=501, stage="RETIRED"), ())
        last = book.get("research/retrieval")
        if last is None or last.snapshot.stage != "RETIRED":
            problems.append("a signed retired record was not obeyed")
    detail = {
        kind: {"offered": by_kind[kind], "counted": dict(sorted(reasons[kind].items()))} for kind in sorted(by_kind)
    }
    return Found({"forged": sum(by_kind.values()), "forged_accepted": accepted}, problems[:20], detail)
