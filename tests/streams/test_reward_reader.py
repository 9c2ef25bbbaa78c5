"""Rewards read in any way are what the codec decodes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.detector_settings import DetectorSettings
from steersman import contracts
from steersman.codec import Codec
from steersman.errors import DecodeError
from steersman.topics import Topics
from streams import reward_reader
from streams.edges import make_codecs
from streams.own_records import OwnRecords
from streams.record_batch import Header, RecordBatch
from streams.reward_reader import RewardReader
from streams.trace_edge import TraceEdge
from streams.trace_stage import StageSettings, TraceStage
from tests.sinks.hostile import any_record, mutated
from tests.streams.raw_logs import CODEC as EVENTS
from tests.streams.raw_logs import batch as batch_of_events
from tests.streams.raw_logs import raw_log
from tests.streams.trace_events import POLICIES, S

CODEC = Codec("reward")
Raw = tuple[bytes | None, tuple[Header, ...]]


def batch(raws: list[Raw]) -> RecordBatch:
    offsets = [7 + 3 * row for row in range(len(raws))]
    values, headers = [value for value, _ in raws], [held for _, held in raws]
    stamps = [1_790_000_000_000 + row for row in range(len(raws))]
    return RecordBatch("r", 0, 1, 0, offsets[0], offsets[-1], offsets, values, [b"k"] * len(raws), headers, stamps)


def one_by_one(taken: RecordBatch, start: int) -> tuple[list[Any], list[Any]]:
    events: list[Any] = []
    failed: list[Any] = []
    for index in range(start, len(taken)):
        try:
            record = CODEC.decode(taken.values[index], taken.headers[index])
        except DecodeError as error:
            failed.append((taken.offsets[index], error.reason, str(error)))
            record = None
        events.append((taken.offsets[index], taken.timestamps[index] * 1000, record))
    return events, failed


def raw_rewards(rng: random.Random, count: int) -> list[Raw]:
    """Rewards, and what else may lie on their topic."""
    raws: list[Raw] = []
    old = contracts.versions("reward")[0]
    for _ in range(count):
        value: bytes | None = CODEC.encode(any_record(rng, "reward"))
        headers: tuple[Header, ...] = ()
        match rng.randrange(12):
            case 0:
                value = mutated(rng, value or b"")
            case 1:
                value = rng.choice([None, b"", CODEC.head, rng.randbytes(30)])
            case 2:
                value, headers = (value or b"")[10:], (("__value_schema_id", b"\x01" + bytes(16)),)
            case 3:
                headers = (("other", b"x"),)
            case 4:
                value = b"\xc3\x01" + contracts.fingerprint(old) + (value or b"")[10:]
        raws.append((value, headers))
    return raws


def typed(record: Mapping[str, Any] | None) -> Any:
    return record if record is None else {name: (type(value), value) for name, value in record.items()}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 40), st.integers(1, 90), st.sampled_from([1, 30, 1 << 30]), st.booleans())
def test_a_batch_is_what_the_codec_makes_of_it(seed: int, count: int, columns_from: int, remembers: bool) -> None:
    rng = random.Random(seed)
    taken = batch(raw_rewards(rng, count))
    start = rng.choice([0, rng.randrange(count)])
    own = OwnRecords() if remembers else None
    for value, headers in zip(taken.values, taken.headers, strict=True):
        if own is not None and value and value.startswith(CODEC.head) and not headers and rng.random() < 0.4:
            try:
                own.note(value, CODEC.decode(value))
            except DecodeError:
                continue
    events, failed = RewardReader(CODEC, own, columns_from=columns_from).read(taken, start)
    expected = one_by_one(taken, start)
    assert [(offset, error.reason, str(error)) for offset, error in failed] == expected[1]
    assert [(offset, stamp, typed(record)) for offset, stamp, record in events] == [
        (offset, stamp, typed(record)) for offset, stamp, record in expected[0]
    ]


def test_many_are_read_by_columns_and_few_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    encoded = [CODEC.encode(any_record(rng, "reward")) for _ in range(200)]
    raws: list[Raw] = [(value, ()) for value in encoded if len(value) < 5000][:100]
    asked: list[int] = []
    decode = CODEC.decode

    def counting(value: bytes | None, headers: Any) -> dict[str, Any]:
        asked.append(1)
        return decode(value, headers)

    monkeypatch.setattr(CODEC, "decode", counting)
    RewardReader(CODEC).read(batch(raws), 0)
    assert not asked
    RewardReader(CODEC).read(batch(raws), 100 - reward_reader.COLUMNS_FROM + 1)
    assert len(asked) == reward_reader.COLUMNS_FROM - 1


@pytest.mark.parametrize("columns_from", [1, 1 << 30])
def test_rewards_that_this_process_made_are_equal_to_what_it_would_decode(columns_from: int) -> None:
    codecs = make_codecs(("reward", "rollup", "alert", "ledger")) | {"trace_event": EVENTS}
    seen = 0
    for seed in range(12):
        own = OwnRecords()
        times = StageSettings(lateness_us=5 * S, horizon_us=40 * S)
        stage = TraceStage(POLICIES, 3, times, detectors=DetectorSettings())
        edge = TraceEdge(stage, Topics("t"), codecs, columns_from=columns_from, own=own)
        taken = batch_of_events(raw_log(random.Random(seed), 400, 0.1), 0, 400, lambda index: 5 + index)
        step = edge.process_batch(taken, 0)
        if step is None:
            decoded = [(o, s * 1000, _decoded(v, h)) for o, s, v, h in zip(
                taken.offsets, taken.timestamps, taken.values, taken.headers, strict=True)]  # fmt: skip
            step = edge.process(decoded)
        for record in step.records:
            if record.topic == Topics("t").reward and record.value is not None:
                assert typed(own.take(record.value)) == typed(CODEC.decode(record.value))
                assert own.take(record.value) is None
                seen += 1
        assert len(own) == 0
    assert seen > 100


def _decoded(value: bytes | None, headers: tuple[Header, ...]) -> dict[str, Any] | None:
    try:
        return EVENTS.decode(value, headers)
    except DecodeError:
        return None


def test_what_is_never_read_is_forgotten() -> None:
    own = OwnRecords(most=3)
    for number in range(100):
        own.note(b"%d" % number, {"n": number})
        assert len(own) <= 6
    assert own.take(b"99") == {"n": 99}
    assert own.take(b"99") is None
    assert own.take(b"10") is None
