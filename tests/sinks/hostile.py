"""Records of any contract with values at their limits, and what happens to bytes."""

from __future__ import annotations

import random
from typing import Any

from steersman import contracts

_TEXTS = ("", "a", "ünï", "x" * 40, "y" * 127, "z" * 128, "€" * 70, "q" * 300, "id-1234", "😀", "\0")
_LONGS = (0, 1, -1, 63, 64, -64, -65, (1 << 56) - 1, (1 << 63) - 1, -(1 << 63))
_INTS = (0, 1, -1, 63, 64, -64, -65, (1 << 31) - 1, -(1 << 31))
_TIMES = (0, -1, 946_684_799_999_999, 946_684_800_000_000, 4_102_444_799_999_999, 4_102_444_800_000_000, (1 << 63) - 1)


def any_record(rng: random.Random, contract: str, **fields: Any) -> dict[str, Any]:
    """A record of a contract with any values; 3 % of its times are at the edge of what is stored, or beyond."""
    return {f["name"]: _value(rng, f["type"]) for f in contracts.schema(contract)["fields"]} | fields


def _value(rng: random.Random, node: Any) -> Any:
    if isinstance(node, list):
        return None if rng.random() < 0.5 else _value(rng, node[1])
    if isinstance(node, dict):
        if node["type"] == "enum":
            return rng.choice(node["symbols"])
        if node["type"] == "array":
            return [_value(rng, node["items"]) for _ in range(rng.choice((0, 0, 1, 3, 16, 70, rng.randrange(200))))]
        return rng.choice(_TIMES) if rng.random() < 0.03 else 1_790_000_000_000_000 + rng.randrange(10**9)
    match node:
        case "string":
            return "w" * rng.choice((63, 64, 16_383, 16_384)) if rng.random() < 0.05 else rng.choice(_TEXTS)
        case "long":
            return rng.choice((*_LONGS, rng.randrange(-(1 << 63), 1 << 63)))
        case "int":
            return rng.choice((*_INTS, rng.randrange(-(1 << 31), 1 << 31)))
        case "double":
            return rng.choice((0.0, -0.0, rng.random(), -1e300))
        case "float":
            return rng.randrange(-1000, 1000) / 8
        case "bytes":
            return rng.randbytes(rng.choice((0, 1, 63, 64, 300)))
        case "boolean":
            return rng.random() < 0.5
        case other:
            raise TypeError(f"no value of type {other!r} can be made up")


def mutated(rng: random.Random, value: bytes) -> bytes:
    """Return other bytes under the same schema: changed, cut, longer, shifted, or with longer numbers."""
    body = bytearray(value)
    at = rng.randrange(10, len(body))
    chance = rng.random()
    if chance < 0.55:
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(10, len(body))
            body[at] = rng.choice(
                (rng.randrange(256), body[at] ^ 1, body[at] ^ 0x80, 2, 4, 0, 255, (body[at] + 1) % 256)
            )
    elif chance < 0.65:
        del body[at]
    elif chance < 0.75:
        body.insert(at, rng.randrange(256))
    elif chance < 0.85:
        del body[at:]
    elif chance < 0.9:
        body += rng.randbytes(rng.randint(1, 20))
    else:
        body[at : at + 1] = bytes([body[at] | 0x80, *[0x80] * rng.randint(0, 9), rng.randrange(3)])
    return bytes(body)
