"""Batches of outputs are encoded as the codec encodes each record, and refused as it refuses each."""

from __future__ import annotations

import random
from typing import Any

import pytest

from steersman.codec import Codec
from streams import batch_encoder
from streams.batch_encoder import BatchEncoder
from streams.edges import make_codecs
from tests.columns.test_writer import CONTRACTS, HOSTILE
from tests.sinks.hostile import any_record


def one_by_one(codec: Codec, records: list[dict[str, Any]]) -> list[Any]:
    def one(record: dict[str, Any]) -> Any:
        try:
            return codec.encode(record)
        except ValueError as error:
            return str(error)

    return list(map(one, records))


def shown(values: list[bytes | ValueError]) -> list[Any]:
    return [str(value) if isinstance(value, ValueError) else value for value in values]


@pytest.mark.parametrize("name", CONTRACTS)
def test_bytes_and_refusals_are_the_codecs(name: str) -> None:
    rng, codec = random.Random(name), Codec(name)
    encoder = BatchEncoder(codec, columns_from=1)
    refused = 0
    for turn in range(150):
        records = [any_record(rng, name) for _ in range(rng.randint(1, 12))]
        for _ in range(rng.choice((0, 0, 1, 2))):
            record = rng.choice(records)
            match rng.randrange(8):
                case 0:
                    record["unknown"] = 1
                case 1:
                    del record[rng.choice(list(record))]
                case 2:
                    record[rng.choice(list(record))] = rng.choice(("y" * 70_000, [0.5] * 10_001, "z" * 9_000))
                case _:
                    record[rng.choice(list(record))] = rng.choice(HOSTILE)
        found = one_by_one(codec, records)
        assert shown(encoder.encode(records)) == found, turn
        refused += sum(isinstance(value, str) for value in found)
    assert refused > 20


def test_many_are_written_by_columns_and_few_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = make_codecs(("reward",))["reward"]
    records = [codec.decode(codec.encode(any_record(random.Random(seed), "reward"))) for seed in range(20)]
    records = [record for record in records if len(codec.encode(record)) < 5_000]
    asked: list[int] = []
    encode = codec.encode

    def counting(record: dict[str, Any]) -> bytes:
        asked.append(1)
        return encode(record)

    monkeypatch.setattr(codec, "encode", counting)
    BatchEncoder(codec).encode(records)
    assert not asked
    BatchEncoder(codec).encode(records[: batch_encoder.COLUMNS_FROM - 1])
    assert len(asked) == batch_encoder.COLUMNS_FROM - 1


class _Ids:
    """A registry that knows the schema."""

    def id_for(self, name: str) -> int | None:
        return 77

    def schema_by_id(self, name: str, schema_id: int) -> None:
        return None

    def schema_by_guid(self, name: str, guid: str) -> None:
        return None


def test_under_a_registry_values_have_its_head() -> None:
    codec = Codec("reward", registry=_Ids())
    records = [any_record(random.Random(seed), "reward", ts=1, hits="") for seed in range(9)]
    values = BatchEncoder(codec).encode(records)
    assert values == [codec.encode(record) for record in records]
    assert all(isinstance(value, bytes) and value.startswith(b"\x00\x00\x00\x00\x4d") for value in values)


def test_what_is_longer_than_the_codec_allows_is_refused() -> None:
    codec = Codec("reward", max_bytes=200)
    records = [any_record(random.Random(seed), "reward") for seed in range(9)]
    values = BatchEncoder(codec).encode(records)
    assert shown(values) == one_by_one(codec, records)
    assert any(isinstance(value, ValueError) for value in values)
