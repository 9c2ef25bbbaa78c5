"""Three framings, every released version, and bytes from people who mean harm."""

from __future__ import annotations

import copy
import io
import json
import math
import random
import uuid
from collections.abc import Mapping
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.compatibility import generate, resolve
from steersman import contracts
from steersman.codec import SCHEMA_ID_HEADER, Codec, plain
from steersman.dead_letter import failure_headers
from steersman.errors import DecodeError
from steersman.record_checks import MAX_ITEMS, MAX_TEXT

Schema = dict[str, Any]
EVENT = {
    "event_id": "e" * 32, "tenant": "acme", "trace_id": "a" * 32, "span_id": "b" * 16, "parent_span_id": "c" * 16,
    "agent": "retrieval", "kind": "DECISION", "ts": 1_700_000_000_123_456, "duration_us": 1_500, "operation": "search",
    "input_tokens": 900, "cost_micro_usd": 1_234, "decision_id": "d", "policy": "research/retrieval",
    "policy_epoch": 1, "policy_version": 77, "arm": "top_k=4", "propensity": 0.25, "explored": True, "mode": "LIVE",
    "features": [0.5, -1.25, 1.0], "eligible": [0, 3], "context": '{"complexity": 0.5}',
}  # fmt: skip
GUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


class Ids:
    """A registry in memory, as `steersman.codec.SchemaIds` wants it."""

    def __init__(self, **schemas: Mapping[str, Any]) -> None:
        self.by_id = {7: schemas.get("seven", contracts.schema("trace_event"))}
        self.writes = 7
        self.asked = 0

    def id_for(self, name: str) -> int | None:
        return self.writes or None

    def schema_by_id(self, name: str, schema_id: int) -> Mapping[str, Any] | None:
        self.asked += 1
        return self.by_id.get(schema_id)

    def schema_by_guid(self, name: str, guid: str) -> Mapping[str, Any] | None:
        self.asked += 1
        return self.by_id.get(7) if guid == GUID else None


def body(record: Mapping[str, Any], schema: Schema | None = None) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, plain(schema or contracts.schema("trace_event")), record)
    return buffer.getvalue()


def single(content: bytes, schema: Schema | None = None) -> bytes:
    return b"\xc3\x01" + contracts.fingerprint(schema or contracts.schema("trace_event")) + content


def reason(codec: Codec, value: bytes | None, headers: Any = ()) -> str:
    with pytest.raises(DecodeError) as error:
        codec.decode(value, headers)
    return error.value.reason


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec("trace_event")


def test_fingerprint_is_the_one_of_the_specification() -> None:
    # Avro's reference value for "int" is 0x7275d51a3f395c8f; the header wants it little-endian.
    assert contracts.fingerprint("int") == 0x7275D51A3F395C8F.to_bytes(8, "little")


def test_every_contract_is_released_and_safe() -> None:
    for name in contracts.NAMES:
        assert contracts.versions(name)[-1] == contracts.schema(name)
        assert contracts.hazard(contracts.schema(name)) is None
    with pytest.raises(KeyError, match="no contract 'trace'"):
        contracts.schema("trace")


def test_single_object_round_trip(codec: Codec) -> None:
    value = codec.encode(EVENT)
    assert value[:2] == b"\xc3\x01"
    read = codec.decode(value)
    assert set(read) == {f["name"] for f in contracts.schema("trace_event")["fields"]}
    assert EVENT.items() <= read.items()
    assert (read["status"], read["truncated"], read["comment"]) == ("OK", False, None)
    assert type(read["ts"]) is int


def test_confluent_framing_and_header_form() -> None:
    ids = Ids()
    codec = Codec("trace_event", registry=ids)
    value = codec.encode(EVENT)
    assert value[:5] == b"\x00\x00\x00\x00\x07"
    assert EVENT.items() <= codec.decode(value).items()
    by_guid = [("traceparent", b"00-x"), (SCHEMA_ID_HEADER, b"\x01" + uuid.UUID(GUID).bytes)]
    assert EVENT.items() <= codec.decode(value[5:], by_guid).items()
    assert EVENT.items() <= codec.decode(value[5:], [(SCHEMA_ID_HEADER, value[:5])]).items()
    assert codec.decode(value) == codec.decode(single(value[5:]))
    assert ids.asked == 2, "each id is asked for once"


def test_the_frame_of_a_value_says_how_it_is_read() -> None:
    codec = Codec("trace_event", registry=Ids())
    framed = [codec.frame(value) for value in (single(body(EVENT)), single(body(EVENT)), codec.encode(EVENT))]
    assert [start for _, start in framed] == [10, 10, 5]
    assert framed[0][0] is framed[1][0]
    assert all(schema == contracts.schema("trace_event") for schema, _ in framed)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"xyz", "magic"),
        (b"\xc3\x01" + b"8" * 9, "unknown_schema"),
        (b"1" * 99, "too_large"),
    ],
)
def test_what_has_no_frame_is_refused_as_decode_does(value: bytes | None, expected: str) -> None:
    codec = Codec("trace_event", max_bytes=50)
    for call in (codec.frame, codec.decode):
        with pytest.raises(DecodeError) as refused:
            call(value)
        assert refused.value.reason == expected


def test_works_without_the_registry_answering() -> None:
    ids = Ids()
    ids.writes = 0
    codec = Codec("trace_event", registry=ids)
    assert codec.encode(EVENT)[:2] == b"\xc3\x01"
    assert reason(Codec("trace_event"), b"\x00\x00\x00\x00\x07" + body(EVENT)) == "unknown_schema"
    assert reason(codec, b"\x00\x00\x00\x00\x08" + body(EVENT)) == "unknown_schema"
    assert reason(codec, body(EVENT), [(SCHEMA_ID_HEADER, b"\x01" + bytes(16))]) == "unknown_schema"


@pytest.mark.parametrize("name", contracts.NAMES)
def test_generated_records_round_trip(name: str) -> None:
    codec, rng = Codec(name), random.Random(5)
    for turn in range(300):
        record = generate(contracts.schema(name), rng, turn)
        assert codec.decode(codec.encode(record)) == record


class TestOtherVersions:
    """What an older or newer writer wrote becomes the current record."""

    @staticmethod
    def older() -> Schema:
        schema = copy.deepcopy(contracts.schema("trace_event"))
        schema["fields"] = [f for f in schema["fields"] if f["name"] not in ("features", "comment", "status")]
        return schema

    @staticmethod
    def newer() -> Schema:
        schema = copy.deepcopy(contracts.schema("trace_event"))
        kind = next(f for f in schema["fields"] if f["name"] == "kind")
        kind["type"]["symbols"].append("HANDOVER")
        schema["fields"].insert(3, {"name": "extra", "type": {"type": "array", "items": "string"}, "default": []})
        return schema

    def test_older(self) -> None:
        codec = Codec("trace_event", registry=Ids(seven=self.older()))
        record = {k: v for k, v in EVENT.items() if k != "features"}
        value = b"\x00\x00\x00\x00\x07" + body(record, self.older())
        first, second = codec.decode(value), codec.decode(value)
        assert (first["features"], first["status"], first["comment"]) == ([], "OK", None)
        first["features"].append(1.0)
        assert second["features"] == codec.decode(value)["features"] == [], "defaults must not be shared"

    def test_newer(self) -> None:
        codec = Codec("trace_event", registry=Ids(seven=self.newer()))
        written = body({**EVENT, "kind": "HANDOVER", "extra": ["x"]}, self.newer())
        read = codec.decode(b"\x00\x00\x00\x00\x07" + written)
        assert read == {**codec.decode(single(body(EVENT))), "kind": "UNKNOWN"}

    def test_generated(self) -> None:
        rng = random.Random(6)
        for schema in (self.older(), self.newer()):
            codec = Codec("trace_event", registry=Ids(seven=schema))
            for turn in range(200):
                record = generate(schema, rng, turn)
                read = codec.decode(b"\x00\x00\x00\x00\x07" + body(record, schema))
                assert read == resolve(record, schema, contracts.schema("trace_event"))

    def test_released_version_needs_no_registry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        older = self.older()
        monkeypatch.setattr(contracts, "versions", lambda name: [older])
        codec = Codec("trace_event")
        assert codec.decode(single(body(EVENT, older), older))["agent"] == "retrieval"


class TestHostile:
    """Nothing but a DecodeError, quickly, whatever comes."""

    def test_no_bytes(self, codec: Codec) -> None:
        assert reason(codec, None) == reason(codec, b"") == "empty"

    def test_too_large(self, codec: Codec) -> None:
        assert reason(codec, bytes(1 << 21)) == "too_large"
        assert reason(Codec("trace_event", max_bytes=50), codec.encode(EVENT)) == "too_large"

    @pytest.mark.parametrize("value", [b"{}", b"\xc3", b"\xc3\x01\x00", b"\x00\x00", b"\x02" + bytes(40), b"null"])
    def test_magic(self, codec: Codec, value: bytes) -> None:
        assert reason(codec, value) == "magic"

    @pytest.mark.parametrize("content", [None, b"", b"\x01", b"\x01" + bytes(15), b"\x02" + bytes(16), "text"])
    def test_magic_in_the_header(self, codec: Codec, content: Any) -> None:
        assert reason(codec, b"abc", [(SCHEMA_ID_HEADER, content)]) == "magic"

    def test_unknown_fingerprint(self, codec: Codec) -> None:
        assert reason(codec, b"\xc3\x01" + bytes(8) + body(EVENT)) == "unknown_schema"
        assert reason(codec, Codec("reward").encode(REWARD)) == "unknown_schema"

    def test_trailing_and_missing_bytes(self, codec: Codec) -> None:
        value = codec.encode(EVENT)
        assert reason(codec, value + b"\x00") == "trailing_bytes"
        assert {reason(codec, value[:cut]) for cut in range(10, len(value))} == {"corrupt"}

    def test_the_same_bytes_fail_with_the_same_text(self, codec: Codec) -> None:
        """A dead letter that is written again after a restart is the same one."""
        value = codec.encode({**EVENT, "value": 1.0})

        def letters() -> list[Any]:
            made = []
            for cut in range(10, len(value)):
                with pytest.raises(DecodeError) as error:
                    codec.decode(value[:cut])
                made.append(failure_headers("t", 0, cut, "DESERIALIZE", error.value, connector="trace"))
            return made

        held = io.BytesIO()  # so that what is read lies elsewhere the second time
        first, second = letters(), letters()
        held.close()
        assert first == second
        texts = [f"{letter}" for letter in first]
        assert any("cannot read float from <_io.BytesIO object>" in text for text in texts)
        assert not any("object at 0x" in text for text in texts)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_not_finite(self, codec: Codec, bad: float) -> None:
        for field, content in (("value", bad), ("propensity", bad), ("features", [1.0, bad, 2.0])):
            assert reason(codec, single(body({**EVENT, field: content}))) == "not_finite"
            with pytest.raises(ValueError, match=field):
                codec.encode({**EVENT, field: content})

    def test_not_finite_deep_inside(self) -> None:
        codec = Codec("policy_snapshot")
        record = generate(contracts.schema("policy_snapshot"), random.Random(1), 0)
        record["objective"] = [{"component": "quality", "weight": math.nan, "scale": 1.0}]
        content = body(record, contracts.schema("policy_snapshot"))
        assert reason(codec, single(content, contracts.schema("policy_snapshot"))) == "not_finite"

    def test_int_of_more_than_32_bits(self, codec: Codec) -> None:
        assert reason(codec, single(body({**EVENT, "eligible": [1, 2**40]}))) == "corrupt"

    def test_too_long(self, codec: Codec) -> None:
        for field, content in (("comment", "x" * (MAX_TEXT + 1)), ("eligible", [0] * (MAX_ITEMS + 1))):
            assert reason(codec, single(body({**EVENT, field: content}))) == "too_long"
            with pytest.raises(ValueError, match=field):
                codec.encode({**EVENT, field: content})

    def test_declared_lengths(self, codec: Codec) -> None:
        start = single(b"")
        for length in (2**31, 2**40, 2**62, -1, -(2**40), -(2**63)):
            assert reason(codec, start + varint(length) + b"abc") == "corrupt", "string"
        before = body({**EVENT, "features": [], "eligible": []})
        at = before.index(b"\x00\x00\x02", before.index(b"top_k=4"))
        for count in (10**7, 2**40, 2**62, -(2**40)):
            hostile = start + before[:at] + varint(count) + before[at:]
            assert reason(codec, hostile) in ("corrupt", "too_long"), "array"

    def test_mutated_records_never_pass_as_something_invalid(self, codec: Codec) -> None:
        """What survives a mutation must itself be a valid record: encodable, and equal when read again."""
        rng, value = random.Random(7), codec.encode(EVENT)
        survived = 0
        for _ in range(10_000):
            mutated = bytearray(value)
            for _ in range(rng.randint(1, 3)):
                place, turn = rng.randrange(len(mutated)), rng.random()
                if turn < 0.6:
                    mutated[place] = rng.randrange(256)
                elif turn < 0.8:
                    del mutated[place]
                else:
                    mutated.insert(place, rng.randrange(256))
            try:
                read = codec.decode(bytes(mutated))
            except DecodeError:
                continue
            survived += 1
            assert codec.decode(codec.encode(read)) == read
        assert 0 < survived < 9_000

    @settings(derandomize=True, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.binary(max_size=200), st.sampled_from([b"", single(b""), b"\x00\x00\x00\x00\x07"]))
    def test_any_bytes(self, codec: Codec, content: bytes, prefix: bytes) -> None:
        try:
            read = codec.decode(prefix + content)
        except DecodeError:
            return
        assert codec.decode(codec.encode(read)) == read

    @pytest.mark.parametrize(
        "schema",
        [
            {"type": "array", "items": "null"},
            {"type": "array", "items": {"type": "record", "name": "E", "fields": []}},
            {"type": "map", "values": {"type": "fixed", "name": "Z", "size": 0}},
            {"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]},
            {"type": "array", "items": {"type": "array", "items": {"type": "null"}}},
            ["null", "TraceEvent"], 5, None, {"type": "record", "name": "N", "fields": 3}, {"type": {"type": {}}},
            {"type": "record", "name": "W", "fields": [{"name": f"f{i}", "type": "int"} for i in range(501)]},
        ],
    )  # fmt: skip
    def test_hostile_writer_schema(self, schema: Any) -> None:
        """Even a registry that has been taken over cannot hand out a schema that hurts."""
        foreign = copy.deepcopy(contracts.schema("trace_event"))
        foreign["fields"].append({"name": "extra", "type": schema})
        codec = Codec("trace_event", registry=Ids(seven=foreign))
        assert reason(codec, b"\x00\x00\x00\x00\x07" + body(EVENT) + varint(10**8) + b"\x00") == "unknown_schema"


REWARD = {
    "decision_id": "d", "tenant": "t", "policy": "p", "trace_id": "a", "ts": 1, "decided_at": 1, "arm": "x",
    "propensity": 1.0, "mode": "LIVE", "cost_micro_usd": 1, "latency_us": 1, "failures": 0, "reward_spec": "0" * 16,
    "closed_by": "WINDOW",
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"nonsense": 1},
        {"ts": "yesterday"},
        {"ts": None},
        {"kind": "NOPE"},
        {"agent": None},
        {"features": [1e300]},
        {"ts": 2**70},
        {"eligible": [2**31]},
        {"value": "high"},
        {"features": 3},
    ],
)
def test_a_record_that_does_not_fit_is_refused(codec: Codec, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="trace_event"):
        codec.encode({**EVENT, **change})


def test_a_missing_field_is_refused(codec: Codec) -> None:
    with pytest.raises(ValueError, match="ts"):
        codec.encode({k: v for k, v in EVENT.items() if k != "ts"})


def test_too_large_to_encode() -> None:
    with pytest.raises(ValueError, match="60 allowed"):
        Codec("trace_event", max_bytes=60).encode(EVENT)


def test_schemas_are_plain_json() -> None:
    for name in contracts.NAMES:
        assert json.loads(json.dumps(contracts.schema(name))) == contracts.schema(name)


def varint(number: int) -> bytes:
    """Zigzag variable-length form of an Avro long."""
    rest = ((number << 1) ^ (number >> 63)) & (2**64 - 1)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes((*out, rest))
