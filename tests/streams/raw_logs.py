"""Raw logs of the trace topic for tests: all that a stage may meet, encoded, and then spoilt here and there."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable, Mapping
from typing import Any

import fastavro

from steersman import contracts
from steersman.codec import MAX_BYTES, SCHEMA_ID_HEADER, Codec, plain
from streams.record_batch import Header, RecordBatch
from tests.faults.poison import Poison
from tests.streams.trace_events import ARMS, T0, S, decision, event, feedback, span_id, tick

CURRENT = contracts.schema("trace_event")
REGISTERED = {7: CURRENT, 8: contracts.versions("trace_event")[0]}
"""Schemas by registry id; 9 is a foreign one that evolved."""


def _older(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A writer's schema without some fields that have defaults, with a new field, and with a symbol unknown to us."""
    fields = [dict(field) for field in schema["fields"] if field["name"] not in ("tenant", "features", "error", "mode")]
    for field in fields:
        if field["name"] == "kind":
            field["type"] = {**field["type"], "symbols": [*field["type"]["symbols"], "DREAM"]}
    return {**schema, "fields": [*fields, {"name": "mood", "type": "string", "default": ""}]}


REGISTERED[9] = _older(CURRENT)


class Ids:
    """A registry that knows `REGISTERED`."""

    def id_for(self, name: str) -> int | None:
        return None

    def schema_by_id(self, name: str, schema_id: int) -> Mapping[str, Any] | None:
        return REGISTERED.get(schema_id)

    def schema_by_guid(self, name: str, guid: str) -> Mapping[str, Any] | None:
        return CURRENT if guid.endswith("7") else None


CODEC = Codec("trace_event", registry=Ids())
Raw = tuple[bytes | None, tuple[Header, ...], int]
"""Value, headers and Kafka timestamp (milliseconds) of a record."""


def good_log(rng: random.Random, count: int) -> list[tuple[dict[str, Any], int]]:
    """Events of a few traces at a time, and their Kafka timestamps in microseconds."""
    now = rng.choice([T0, T0, T0, 900_000_000_000_000])  # the last one is before the year 2000
    pace = rng.choice([3_000, 100_000, 900_000])
    traces = [f"{rng.getrandbits(128) | 1:032x}" for _ in range(6)]
    made: list[tuple[dict[str, Any], int]] = []
    for number in range(count):
        now += rng.randrange(pace)
        at = rng.randrange(len(traces))
        if rng.random() < 0.08:
            traces[at] = f"{rng.getrandbits(128) | 1:032x}"
        if made and rng.random() < 0.05:
            made.append((rng.choice(made)[0], now))
            continue
        ts = now - rng.choice([0, 0, rng.randrange(300_000), rng.randrange(50 * S)])
        made.append((_event(rng, traces[at], ts, number), now + rng.randrange(-20_000, 20_000)))
    return made


def _event(rng: random.Random, trace: str, ts: int, number: int) -> dict[str, Any]:
    roll = rng.random()
    names = {
        "agent": rng.choice(["", "planner", "Prüferin", "a" * 70]),
        "tenant": rng.choice(["default", "default", "other"]),
        "parent_span_id": rng.choice([None, span_id("root"), span_id("step")]),
        "operation": rng.choice([None, "", "model-large", "search"]),
    }
    if roll < 0.15:
        policy = rng.choice(["p", "last", "max", "mean", "whole", "nodefault", "even", "triple", "against"])
        names["tenant"] = "default"
        return decision(
            ts, f"d{number}", trace=trace, policy=policy, arm=rng.choice(ARMS.labels), eligible=rng.choice([[], [0, 1, 2, 3]]),
            explored=rng.random() < 0.5, cost_micro_usd=rng.choice([None, 5]), **names,
        )  # fmt: skip
    if roll < 0.27:
        names["tenant"] = "default"
        return feedback(ts, rng.random(), f"f{number}", trace=trace, **names)
    if roll < 0.33:
        return event("END", ts, f"e{number}", trace=trace, **(names | {"tenant": "default"}))
    if roll < 0.35:
        return tick(ts)
    return event(
        rng.choice(["MODEL_CALL", "TOOL_CALL", "RETRIEVAL", "REASONING", "AGENT"]), ts, f"s{number}", trace=trace,
        status=rng.choice(["OK", "OK", "ERROR", "TIMEOUT", "CANCELLED"]), duration_us=rng.choice([None, 0, 1, rng.randrange(10**7)]),
        cost_micro_usd=rng.choice([None, 0, rng.randrange(10**5)]), input_tokens=rng.choice([None, rng.randrange(5000)]),
        output_tokens=rng.choice([None, rng.randrange(5000)]), cached_input_tokens=rng.choice([None, 3]),
        reasoning_tokens=rng.choice([None, 11]), context_tokens=rng.choice([None, rng.randrange(1000)]),
        context_limit=rng.choice([None, 0, 1000, 3000]), explored=rng.choice([None, None, True]),
        policy=rng.choice([None, None, "p"]), arm=rng.choice([None, None, "x=1"]),
        args_hash=rng.choice([None, None, "ab" * 8, "ab" * 8, "cd" * 8, "ä" * 32, "ä" * 33, ""]),
        error=rng.choice([None, None, "RateLimitError", "ContextWindowExceededError", "Kontextlängen"]), comment=rng.choice([None, "schön"]), **names,
    )  # fmt: skip


_ODD: list[Callable[[random.Random], dict[str, Any]]] = [
    lambda rng: {"kind": "UNKNOWN"},
    lambda rng: {"status": "UNKNOWN"},
    lambda rng: {"mode": "UNKNOWN"},
    lambda rng: {"event_id": rng.choice(["", "A" * 32, "a" * 31, "a" * 33, "ä" * 16, "g" + "a" * 31])},
    lambda rng: {"trace_id": rng.choice(["0" * 32, "a" * 31 + " ", "short"])},
    lambda rng: {"span_id": rng.choice(["0" * 16, "B" * 16, "a" * 15 + "\n"])},
    lambda rng: {"parent_span_id": rng.choice(["", "0" * 16, "z" * 16])},
    lambda rng: {"ts": rng.choice([-1, 0, 253_402_300_800_000_000, T0 + 10**10, T0 - 10**13, -(1 << 63), (1 << 63) - 1])},
    lambda rng: {rng.choice(["duration_us", "cost_micro_usd", "output_tokens", "context_limit", "cache_write_tokens"]):
                 rng.choice([-1, 10**13, 10**13 + 1, (1 << 63) - 1])},
    lambda rng: {rng.choice(["tenant", "agent", "operation", "policy", "arm", "metric"]):
                 rng.choice(["x" * 5000, "ß" * 100, "ß" * 200, "__other__", "\x00"])},
    lambda rng: {"value": rng.choice([None, 1e12, 1.1e12, -0.0]), "label": rng.choice([None, "good"])},
    lambda rng: {"propensity": rng.choice([None, 0.0, 1.0, 1.5])},
    lambda rng: {"features": rng.choice([[], [1.0, 2.0], [3.0] * 300]), "eligible": rng.choice([[], [-1], [9], [1], [0] * 2000])},
    lambda rng: {"decision_id": rng.choice([None, "x", "a" * 32])},
    lambda rng: {"policy": rng.choice([None, "nobody"]), "policy_version": rng.choice([None, -1, 5])},
    lambda rng: {"target_decision_id": "nobody's", "target_span_id": rng.choice([None, "nobody"])},
    lambda rng: {"attributes": rng.choice(["{}", "x" * 9000, "y" * 12_000, "ü" * 66_000, "z" * 66_000])},
]  # fmt: skip


_ODD_STAMPS = (-1, -1, 0, 1, (1 << 63) - 1, -(1 << 63), 10**15, 946_684_800_000, (T0 + (1 << 64)) // 1000)


def raw_log(rng: random.Random, count: int, spoilt: float) -> list[Raw]:
    """A log of which so large a share is odd or no event at all."""
    poison = Poison(rng, CODEC)
    log: list[Raw] = []
    for one, stamp in good_log(rng, count):
        value: bytes | None
        headers: tuple[Header, ...] = ()
        if rng.random() < spoilt / 2:
            one = one | rng.choice(_ODD)(rng)
        try:
            value = CODEC.encode(one)
        except ValueError:  # more than the codec lets pass: an agent of somebody else's
            value = _encode(CURRENT, one, CODEC.encode(tick(T0))[:10])
        if rng.random() < spoilt:
            value, headers = _spoil(rng, poison, one, value)
        log.append((value, headers, rng.choice(_ODD_STAMPS) if rng.random() < spoilt / 5 else stamp // 1000))
    return log


def _encode(schema: Mapping[str, Any], one: Mapping[str, Any], head: bytes) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(plain(schema)), one)
    return head + buffer.getvalue()


def _spoil(
    rng: random.Random, poison: Poison, one: dict[str, Any], value: bytes
) -> tuple[bytes | None, tuple[Header, ...]]:
    body = value[10:]
    match rng.randrange(13):
        case 0:
            return None, ()
        case 1:
            return poison.rubbish(value), ()
        case 2:
            return poison.bomb(one), ()
        case 3:
            return poison.not_finite(
                {**event("FEEDBACK", T0, "nan", metric="quality"), **one, "value": 1.0, "attributes": None}
            ), ()
        case 4:
            number = rng.choice([7, 8, 9, 10])
            if number == 9:
                body = _encode(REGISTERED[9], {**one, "mood": "fine", "kind": rng.choice([one["kind"], "DREAM"])}, b"")
            return b"\x00" + number.to_bytes(4, "big") + body, ()
        case 5:
            return body, ((SCHEMA_ID_HEADER, b"\x01" + bytes(15) + bytes([rng.choice([7, 9])])), ("other", b"x"))
        case 6:
            return value[: rng.randrange(len(value))], ()
        case 7:
            return value + rng.randbytes(rng.randrange(1, 9)), (("trace", b"1"),)
        case 8:
            return value[:10] + body[1:] + body[:1], ()
        case 9:
            return value + bytes(MAX_BYTES), ()
        case 10:
            return value[:10] + body + body, ()
        case 11:
            unions = [place for place in range(10, len(value)) if value[place] == 2]
            place = rng.choice(unions) if unions else 10
            return value[:place] + b"\x04" + value[place + 1 :], ()
    mutated = bytearray(value)
    for _ in range(rng.choice([1, 1, 1, 2, 6])):
        place = rng.randrange(10, len(mutated))
        mutated[place] = rng.choice([0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    if rng.random() < 0.3:
        place = rng.randrange(10, len(mutated))
        mutated[place:place] = struct.pack("<d", rng.choice([float("nan"), 0.0]))[: rng.randrange(1, 9)]
    return bytes(mutated), ()


def batch(log: list[Raw], first: int, end: int, offset: Callable[[int], int]) -> RecordBatch:
    """Some records of a log as a fetched batch."""
    part = log[first:end]
    offsets = [offset(index) for index in range(first, end)]
    values, headers, stamps = zip(*part, strict=True)
    return RecordBatch(
        "t", 3, 1, 0, offsets[0], offsets[-1], offsets, list(values), [b"k"] * len(part), list(headers), list(stamps)
    )
